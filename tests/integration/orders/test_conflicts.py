"""One key, two bodies: the first order stays, what came later is kept beside it."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace
from sqlalchemy import event, select, text, update
from sqlalchemy.orm import Session

from services.orders import conflicts
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.shops import awaited
from services.orders.unknown import Unknown
from shared import erased
from shared.bus.contract.events import TrackingStatus, decode
from shared.db.models import Order, OrderConflict, OrderStatusHistory, OutboxMessage
from shared.db.session import transaction
from shared.ids import new_id
from shared.intake import bodies
from tests.integration.arrange import account, order_created, received, status_changed, until

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def business(db):
    return account(db)


def sent(account_id, address="12 Marina Road", key="order-7", more="", **changes):
    """What the recorder gets of a keyed request."""
    body = (
        b'{"customer_details": {"name": "Zoe", "email": "zoe@shop.example"},'
        b' "item_summary": "kettle", "address": "%s"%s}' % (address.encode(), more.encode())
    )
    _, message = bodies.read(body, account_id, time.time(), None, key)
    order = decode(message.type, message.body)
    return received(order, id=UUID(message.message_id), **({"time": NOW} | changes))


def take_in(*messages):
    with transaction() as session:
        assert not record(session, messages, lanes=Lanes(1_000, 100), unknown=Unknown(1_000))


def kept(db, order_id):
    db.rollback()
    rows = db.scalars(
        select(OrderConflict).where(OrderConflict.order_id == order_id).order_by(OrderConflict.at)
    )
    return [row.event and row.event["address"] for row in rows]


def facts(db):
    db.rollback()
    return list(db.scalars(select(OutboxMessage.type).order_by(OutboxMessage.sequence)))


@pytest.mark.parametrize("at_once", [True, False])
def test_another_body_under_the_same_key_is_kept_and_changes_nothing(db, business, at_once):
    first, other = sent(business.id), sent(business.id, "elsewhere")
    assert first.data.order_id == other.data.order_id
    for batch in [(first, other)] if at_once else [(first,), (other,)]:
        take_in(*batch)
    assert db.get(Order, first.data.order_id).address == "12 Marina Road"
    assert kept(db, first.data.order_id) == ["elsewhere"]
    assert facts(db) == ["order.recorded", "order.not_taken"]
    take_in(other, first)
    assert kept(db, first.data.order_id) == ["elsewhere"]
    assert facts(db) == ["order.recorded", "order.not_taken"]


def told(db):
    db.rollback()
    rows = db.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.type == "order.not_taken")
        .order_by(OutboxMessage.sequence)
    )
    return [(row.message_id, decode(row.type, row.body)) for row in rows]


def test_a_business_is_told_of_a_key_used_twice_once_a_day(db, business):
    first, other = sent(business.id), sent(business.id, "elsewhere")
    take_in(first, other, sent(business.id, "a third"))
    take_in(sent(business.id, "a fourth"))
    theirs = account(db)
    take_in(sent(theirs.id), sent(theirs.id, "elsewhere"))
    (one, fact), (again, _), (another, for_them) = told(db)
    # The notifier sends one email of one id.
    assert one == again
    assert one != another
    assert (fact.what, fact.email, fact.account_id) == ("key_reused", business.email, business.id)
    assert (fact.order_id, fact.event_id) == (first.data.order_id, other.id)
    assert for_them.account_id == theirs.id


PARCEL = ', "carrier": "DHL", "tracking_number": "1Z9"'


@pytest.mark.parametrize("more", ["", PARCEL, ', "tracking_status": "IN_TRANSIT"'])
def test_the_same_order_in_another_layout_is_no_conflict(db, business, more):
    first = sent(business.id, more=more)
    take_in(first, sent(business.id, more=more + "  "))
    updates = (
        status_changed(first.data, TrackingStatus.IN_TRANSIT),
        replace(status_changed(first.data, TrackingStatus.DELIVERED), tracking_number="another"),
    )
    take_in(*(received(one, time=NOW + timedelta(hours=1)) for one in updates))
    take_in(received(first.data, id=new_id(), time=NOW + timedelta(hours=2)))
    assert told(db) == []
    assert kept(db, first.data.order_id) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ', "tracking_status": "DELIVERED"'),
        (', "tracking_status": "IN_TRANSIT"', ""),
        ("", PARCEL),
        (PARCEL, ""),
        (PARCEL, ', "carrier": "UPS", "tracking_number": "1Z9"'),
    ],
)
def test_whatever_an_order_says_otherwise_is_a_conflict(db, business, before, after):
    first, other = sent(business.id, more=before), sent(business.id, more=after)
    take_in(first)
    later = replace(status_changed(first.data, TrackingStatus.DELIVERED), carrier="UPS")
    take_in(received(later, time=NOW + timedelta(hours=1)))
    take_in(other)
    assert kept(db, first.data.order_id) == ["12 Marina Road"]
    assert [fact.event_id for _, fact in told(db)] == [other.id]


def test_the_same_order_is_none_after_its_history_has_forgotten_the_parcel(db, business):
    first = sent(business.id, more=PARCEL)
    take_in(first)
    db.execute(update(OrderStatusHistory).values(tracking=None))
    db.commit()
    take_in(received(first.data, id=new_id(), time=NOW + timedelta(days=400)))
    assert kept(db, first.data.order_id) == []
    take_in(sent(business.id))
    assert kept(db, first.data.order_id) == ["12 Marina Road"]


def test_a_copy_is_no_conflict_though_the_inbox_has_forgotten_it(db, business):
    first = sent(business.id)
    take_in(first)
    take_in(first)
    take_in(sent(business.id, replay="again"))
    assert kept(db, first.data.order_id) == []
    assert facts(db) == ["order.recorded"]


def test_an_order_without_a_key_has_no_conflict_with_itself(db, business):
    created = order_created(business.id)
    take_in(received(created, id=created.order_id))
    take_in(received(created, id=created.order_id, replay="again"))
    assert kept(db, created.order_id) == []


def test_another_accounts_same_key_is_another_order(db, business):
    ours, theirs = sent(business.id), sent(account(db).id, "elsewhere")
    take_in(ours, theirs)
    assert ours.data.order_id != theirs.data.order_id
    assert facts(db) == ["order.recorded"] * 2
    # What no ingress would make: it is not shown to the account whose order it names.
    forged = order_created(account(db).id, order_id=ours.data.order_id)
    take_in(received(forged))
    assert kept(db, ours.data.order_id) == []


def test_what_is_kept_is_bounded(db, business):
    first = sent(business.id)
    take_in(first)
    others = [
        sent(business.id, f"number {n:03}", time=NOW + timedelta(seconds=n))
        for n in range(conflicts.MAX_KEPT + 5)
    ]
    take_in(*others[:3])
    take_in(*others[3:])
    # Of what comes later no more than that it came: it shows as a conflict, and is told.
    words = [f"number {n:03}" for n in range(conflicts.MAX_KEPT)]
    assert kept(db, first.data.order_id) == [*words, *([None] * 5)]
    before = len(told(db))
    another = sent(business.id, "yet another", time=NOW + timedelta(hours=1))
    take_in(another)
    take_in(another)
    assert [fact.event_id for _, fact in told(db)[before:]] == [another.id]
    assert db.get(OrderConflict, another.id).event is None


@contextmanager
def rows_read(db):
    """Count the history rows that the server reads, and the rows that it returns."""
    counts = {"read": 0, "returned": 0}
    query = text(
        "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) "
        "FROM pg_stat_xact_user_tables WHERE relname = 'order_status_history'"
    )

    def count(_connection, cursor, statement, *_):
        if "order_status_history" in statement and "pg_stat" not in statement:
            counts["returned"] += cursor.rowcount

    before = db.scalar(query)
    event.listen(db.get_bind(), "after_cursor_execute", count)
    yield counts
    event.remove(db.get_bind(), "after_cursor_execute", count)
    counts["read"] = db.scalar(query) - before


def add_history(engine, order_id, first, last, status="IN_TRANSIT"):
    """Add 5,000 history rows of one order with notes, stamped evenly up to `last`."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO order_status_history "
                "(event_id, order_id, tracking_status, note, at, applied) "
                "SELECT gen_random_uuid(), :order_id, :status, 'note ' || n, "
                "CAST(:first AS timestamptz) + n * (CAST(:last AS timestamptz) - :first) / 5000, "
                "false FROM generate_series(1, 5000) AS n"
            ),
            {"order_id": order_id, "status": status, "first": first, "last": last},
        )
        # Without other orders any plan is as cheap as another.
        connection.execute(
            text(
                "INSERT INTO order_status_history "
                "(event_id, order_id, tracking_status, at, applied) "
                "SELECT gen_random_uuid(), gen_random_uuid(), 'PENDING', now(), true "
                "FROM generate_series(1, 20000)"
            )
        )
        connection.execute(text("ANALYZE order_status_history"))


def test_the_history_of_an_order_is_not_read_for_each_conflict(db, business, engine):
    """One sender's equal stamps must not fill the memory of the recorder, which is everybody's."""
    first = sent(business.id)
    take_in(first)
    add_history(engine, first.data.order_id, NOW, NOW)
    others = [sent(business.id, f"number {n}") for n in range(10)]
    with rows_read(db) as counts:
        assert len(conflicts.keep(db, [*others, received(first.data)])) == 10
    assert counts["returned"] <= 2 * len(others) + 1
    assert counts["read"] <= conflicts.MOST_OF_ITS_STAMP * (len(others) + 1)


@pytest.mark.parametrize("status", ["IN_TRANSIT", "CANCELLED"])
def test_the_history_from_before_an_order_was_placed_is_read_in_part(db, business, engine, status):
    created = order_created(business.id, metadata={"shop": "kettles.example"})
    take_in(received(created, id=created.order_id, time=NOW))
    begin, end = NOW - timedelta(seconds=10_000), NOW - timedelta(seconds=5_000)
    add_history(engine, created.order_id, begin, end, status)
    earlier = received(created, id=created.order_id, time=end)
    with rows_read(db) as counts:
        found = awaited.placing(db, [earlier], {created.order_id: NOW})
    placed_at = end if status == "CANCELLED" else begin + timedelta(seconds=1)
    assert found.since == {created.order_id: placed_at}
    latest = [message.data.reason for message in found.cancelled]
    words = [f"note {n}" for n in range(5000, 5000 - awaited.MOST_CANCELLATIONS, -1)]
    assert sorted(latest, reverse=True) == (words if status == "CANCELLED" else [])
    assert counts["returned"] <= awaited.MOST_CANCELLATIONS + 1
    assert counts["read"] <= 2 * awaited.MOST_EARLIER


def test_a_later_copy_of_a_keyed_update_does_not_move_the_order_back(db, business):
    """The inbox drops it as a rule; not after it was pruned, nor in a replay of the journal."""
    created = order_created(business.id)
    take_in(received(created, id=created.order_id, time=NOW))
    change = status_changed(created, TrackingStatus.IN_TRANSIT)
    body = (
        b'{"type": "order.status_changed", "order_id": "%s", "tracking_status": "IN_TRANSIT"}'
        % str(created.order_id).encode()
    )
    _, message = bodies.read(body, business.id, time.time(), None, "update-1")
    update_id = UUID(message.message_id)
    take_in(received(change, id=update_id, time=NOW + timedelta(seconds=1)))
    later = status_changed(created, TrackingStatus.OUT_FOR_DELIVERY)
    take_in(received(later, id=new_id(), time=NOW + timedelta(seconds=2)))
    before = facts(db)
    again = received(change, id=update_id, time=NOW + timedelta(seconds=3), replay="again")
    take_in(again)
    assert db.get(Order, created.order_id).tracking_status == "OUT_FOR_DELIVERY"
    assert facts(db) == before
    count = select(OrderStatusHistory).where(OrderStatusHistory.order_id == created.order_id)
    assert len(db.scalars(count).all()) == 3


def test_none_is_kept_of_an_order_whose_customer_is_being_erased(db, business, engine):
    first, other = sent(business.id), sent(business.id, "elsewhere")
    take_in(first)
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    with Session(engine) as erasing, ThreadPoolExecutor(1) as threads:
        erasing.execute(select(Order.id).with_for_update())
        recording = threads.submit(take_in, other)
        until(lambda: recording.done() or db.rollback() or db.scalar(waits), "it waits, or is done")
        erasing.execute(update(Order).values(customer_email=erased.ADDRESS))
        erasing.commit()
        recording.result()
    assert kept(db, first.data.order_id) == []
    assert facts(db) == ["order.recorded"]


def test_two_recorders_with_a_conflict_and_an_update_of_each_others_order_do_not_deadlock(
    db, business, engine, monkeypatch
):
    """Each keeps another body of an order that the other moves, in one batch."""
    one, two = (sent(business.id, key=key) for key in ("order-1", "order-2"))
    take_in(one, two)
    moves = [received(status_changed(m.data, TrackingStatus.IN_TRANSIT)) for m in (one, two)]
    batches = [
        (sent(business.id, "elsewhere", key="order-1"), moves[1]),
        (sent(business.id, "elsewhere", key="order-2"), moves[0]),
    ]
    waits = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    kept_by = []
    keep = conflicts.keep

    def is_blocked():
        with engine.connect() as connection:
            return bool(connection.scalar(waits))

    def keep_and_wait(session, messages):
        found = keep(session, messages)
        kept_by.append(found)
        until(lambda: len(kept_by) == 2 or is_blocked(), "both have kept theirs, or one waits")
        return found

    monkeypatch.setattr(conflicts, "keep", keep_and_wait)
    with ThreadPoolExecutor(2) as threads:
        for recording in [threads.submit(take_in, *batch) for batch in batches]:
            recording.result()
    for first in (one, two):
        assert kept(db, first.data.order_id) == ["elsewhere"]
    assert set(db.scalars(select(Order.tracking_status))) == {"IN_TRANSIT"}
