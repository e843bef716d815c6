"""Orders: recorded in batches, whatever the order in which their messages come."""

import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from services.orders.__main__ import wire
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.contract import topology
from shared.bus.contract.errors import Retry
from shared.bus.contract.events import OrderCancelled, TrackingStatus, decode
from shared.bus.contract.message import message_for
from shared.db.models import Order, OrderStatusHistory, OutboxMessage
from shared.db.session import transaction
from shared.ids import new_id
from tests.integration.arrange import (
    account,
    consuming,
    depth,
    order_created,
    publish,
    publish_raw,
    received,
    status_changed,
    until,
)

PENDING, IN_TRANSIT, OUT, DELIVERED, CANCELLED = TrackingStatus
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def business(db):
    return account(db)


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def said(event, seconds=0, **changes):
    values = {"id": event.order_id} if type(event).__name__ == "OrderCreated" else {}
    return received(event, time=at(seconds), **(values | changes))


def take_in(*messages, lanes=None, unknown=None):
    with transaction() as session:
        return record(
            session,
            messages,
            lanes=lanes or Lanes(1_000, 100),
            unknown=unknown or Unknown(1_000),
        )


def order(db, id_):
    db.rollback()
    return db.get(Order, id_, populate_existing=True)


def history(db, id_):
    db.rollback()
    rows = db.scalars(
        select(OrderStatusHistory)
        .where(OrderStatusHistory.order_id == id_)
        .order_by(OrderStatusHistory.at)
    )
    return [(row.tracking_status, row.applied) for row in rows]


def facts(db):
    db.rollback()
    rows = db.execute(
        select(OutboxMessage.type, OutboxMessage.body).order_by(OutboxMessage.sequence)
    )
    return [decode(type_, body) for type_, body in rows]


def types(db):
    return [fact.TYPE for fact in facts(db)]


def test_out_of_the_journal_nothing_is_told_that_was_over(db, business):
    """In their first order the second may have been told and the first, which overtook its order
    and came back later, not."""
    created, other = order_created(business.id), order_created(business.id)
    take_in(
        said(created, replay="again"),
        said(status_changed(created, IN_TRANSIT), 1, replay="again"),
        said(status_changed(created, OUT), 2, replay="again"),
        said(other),
        said(status_changed(other, IN_TRANSIT), 1),
        said(status_changed(other, OUT), 2),
    )
    told = [(fact.order_id, fact.tracking_status) for fact in facts(db)]
    assert sorted(map(str, told)) == sorted(
        map(
            str,
            [
                (created.order_id, PENDING),
                (created.order_id, OUT),
                *((other.order_id, status) for status in (PENDING, IN_TRANSIT, OUT)),
            ],
        )
    )
    assert history(db, created.order_id) == history(db, other.order_id)


def test_an_order_is_recorded_with_its_history_and_one_fact(db, business):
    created = order_created(business.id)
    assert not take_in(said(created))
    found = order(db, created.order_id)
    assert (found.customer_name, found.customer_email) == ("Zoë Ade", "zoe@shop.example")
    assert (found.item_summary, found.address) == ("2 × blue kettle", "12 Marina Road\nLagos")
    assert (found.tracking_status, found.accepted_at) == ("PENDING", NOW)
    assert history(db, created.order_id) == [("PENDING", True)]
    (fact,) = facts(db)
    assert (fact.TYPE, fact.company_name) == ("order.recorded", "Kettle & Co")


def test_the_same_order_twice_is_one_order_and_one_fact(db, business):
    created = order_created(business.id)
    take_in(said(created), said(created))
    take_in(said(created, id=new_id()))
    assert types(db) == ["order.recorded"]
    assert history(db, created.order_id) == [("PENDING", True)]


def test_created_and_moved_in_one_batch_in_any_order(db, business):
    created = order_created(business.id)
    take_in(
        said(status_changed(created, OUT), 2),
        said(status_changed(created, IN_TRANSIT), 1),
        said(created, 0),
    )
    assert order(db, created.order_id).tracking_status == "OUT_FOR_DELIVERY"
    assert history(db, created.order_id) == [
        ("PENDING", True),
        ("IN_TRANSIT", True),
        ("OUT_FOR_DELIVERY", True),
    ]
    assert types(db) == ["order.recorded", "order.status_recorded", "order.status_recorded"]
    assert [f.previous_status for f in facts(db)[1:]] == [PENDING, IN_TRANSIT]


def test_a_late_update_is_kept_and_does_not_count(db, business):
    created = order_created(business.id)
    take_in(said(created))
    take_in(said(status_changed(created, OUT), 2))
    take_in(said(status_changed(created, IN_TRANSIT), 1))
    assert order(db, created.order_id).tracking_status == "OUT_FOR_DELIVERY"
    assert history(db, created.order_id)[1] == ("IN_TRANSIT", False)
    assert len(facts(db)) == 2


def test_delivered_is_final_and_so_is_cancelled(db, business):
    first, second = order_created(business.id), order_created(business.id)
    take_in(said(first), said(second))
    cancel = OrderCancelled(order_id=second.order_id, account_id=business.id, reason="Sold out.")
    take_in(said(status_changed(first, DELIVERED), 1), said(cancel, 1))
    take_in(said(status_changed(first, IN_TRANSIT), 2), said(status_changed(second, OUT), 2))
    assert order(db, first.order_id).tracking_status == "DELIVERED"
    assert order(db, second.order_id).tracking_status == "CANCELLED"
    cancelled = [f for f in facts(db) if f.TYPE == "order.cancellation_recorded"]
    assert [f.reason for f in cancelled] == ["Sold out."]


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "one by one"])
def test_the_end_does_not_depend_on_the_order_of_arrival(db, business, together):
    """Of late, early and equal stamps; and the customer hears of the delivery once."""
    said_of_it = [(DELIVERED, 5), (IN_TRANSIT, 10), (CANCELLED, 5), (DELIVERED, 7)]
    ends, told = set(), []
    for arrival in itertools.permutations(said_of_it):
        created = order_created(business.id)
        updates = [said(status_changed(created, status), after) for status, after in arrival]
        take_in(said(created))
        for batch in [updates] if together else [[update] for update in updates]:
            take_in(*batch)
        found = order(db, created.order_id)
        ends.add((found.tracking_status, found.status_at))
        told.append(statuses_told(db, created.order_id))
    assert ends == {("DELIVERED", at(5))}
    assert {statuses[-1] for statuses in told} == {DELIVERED}
    assert {statuses.count(DELIVERED) for statuses in told} == {1}


def statuses_told(db, order_id):
    return [f.tracking_status for f in facts(db) if f.order_id == order_id]


def test_a_status_of_cancelled_is_a_cancellation(db, business):
    created = order_created(business.id)
    take_in(said(created), said(status_changed(created, CANCELLED, "Sold out."), 1))
    assert types(db)[1] == "order.cancellation_recorded"


def test_the_same_status_again_is_news_only_with_a_note(db, business):
    created = order_created(business.id)
    take_in(said(created), said(status_changed(created, IN_TRANSIT), 1))
    take_in(said(status_changed(created, IN_TRANSIT), 2))
    assert len(facts(db)) == 2
    take_in(said(status_changed(created, IN_TRANSIT, "At the depot."), 3))
    assert len(facts(db)) == 3


def test_what_overtook_its_order_comes_back_and_harms_no_neighbour(db, business):
    known, unknown = order_created(business.id), order_created(business.id)
    early = said(status_changed(unknown, IN_TRANSIT), 1)
    failures = take_in(said(known), early, said(status_changed(known, IN_TRANSIT), 1))
    assert list(failures) == [early.id]
    assert isinstance(failures[early.id], Retry)
    assert order(db, known.order_id).tracking_status == "IN_TRANSIT"
    take_in(said(unknown))
    assert not take_in(early)
    assert order(db, unknown.order_id).tracking_status == "IN_TRANSIT"


def test_an_account_has_so_many_updates_of_unknown_orders_on_the_ladder_and_no_more(db, business):
    """Its sender can make any number of ids up, and each would come back for four hours."""
    unknown = Unknown(3)
    early = [said(status_changed(order_created(business.id), IN_TRANSIT), n) for n in range(5)]
    first = take_in(*early, unknown=unknown)
    # The others are written down as given up, see test_waiting_updates.py.
    assert {id_: type(error) for id_, error in first.items()} == {m.id: Retry for m in early[:3]}
    # Those that come back are no new ones, and another account has its own.
    again = [said(m.data, n, attempt=1) for n, m in enumerate(early[:3])]
    other = said(status_changed(order_created(account(db).id), IN_TRANSIT), 9)
    later = take_in(*again, other, unknown=unknown)
    assert {type(error) for error in later.values()} == {Retry}


def test_another_accounts_order_is_as_unknown_as_none(db, business):
    created = order_created(business.id)
    take_in(said(created))
    theirs = status_changed(order_created(account(db).id, order_id=created.order_id), DELIVERED)
    none = status_changed(order_created(business.id), DELIVERED)
    failures = take_in(said(theirs, 1), said(none, 1))
    words = {str(error).replace(str(theirs.order_id), "X") for error in failures.values()}
    assert {w.replace(str(none.order_id), "X") for w in words} == {"this account has no order X"}
    assert order(db, created.order_id).tracking_status == "PENDING"
    assert history(db, created.order_id) == [("PENDING", True)]


def test_an_id_that_another_account_used_first_stays_theirs(db, business):
    created = order_created(business.id)
    take_in(said(created))
    take_in(said(order_created(account(db).id, order_id=created.order_id)))
    assert order(db, created.order_id).account_id == business.id
    assert len(facts(db)) == 1


def test_shuffled_batches_of_two_recorders_end_alike(settings, db, engine, business, amqp_url):
    """100 orders with five updates each, in random order, doubled, over the bus."""
    orders = [order_created(business.id) for _ in range(100)]
    messages = []
    for created in orders:
        messages.append(
            message_for(
                created,
                source="tests",
                correlation_id=created.order_id,
                message_id=created.order_id,
                time=at(0),
            )
        )
        for seconds, status in enumerate([IN_TRANSIT, OUT, IN_TRANSIT, OUT, DELIVERED], 1):
            change = status_changed(created, status, note=f"step {seconds}")
            messages.append(
                message_for(
                    change, source="tests", correlation_id=created.order_id, time=at(seconds)
                )
            )
    creations = [m for m in messages if m.type == "order.created"]
    updates = [m for m in messages if m.type != "order.created"] * 2
    random.Random(7).shuffle(updates)
    [subscription] = wire(settings).subscriptions
    with consuming(settings, subscription, subscription):
        publish(amqp_url, *creations, *creations)
        # Overtaking has a test of its own; the ladder's shortest rung is 5 s.
        until(lambda: len(types(db)) == 100, "all created")
        publish(amqp_url, *updates)

        def delivered():
            with engine.connect() as connection:
                rows = connection.execute(select(Order.tracking_status)).scalars().all()
            return rows.count("DELIVERED") == 100

        until(delivered, "all delivered")
        until(lambda: depth(amqp_url, "orders.intake") == 0, "drained")
    for created in orders:
        assert len(history(db, created.order_id)) == 6
    recorded = [f for f in facts(db) if f.TYPE == "order.recorded"]
    assert len(recorded) == len({f.order_id for f in recorded}) == 100
    final = [f for f in facts(db) if getattr(f, "tracking_status", None) is DELIVERED]
    assert len(final) == 100


def test_nonsense_on_the_intake_is_dead_and_harms_no_neighbour(
    settings, db, engine, business, amqp_url
):
    good = order_created(business.id)
    for body in (b"", b"{", b'{"order_id": 1}', b"\xff"):
        publish_raw(
            amqp_url,
            "intake",
            "order.created",
            body,
            type="order.created",
            delivery_mode=2,
        )
    publish(amqp_url, message_for(good, source="tests", correlation_id=good.order_id))
    with consuming(settings, *wire(settings).subscriptions):
        until(lambda: order(db, good.order_id), "recorded")
        until(lambda: depth(amqp_url, topology.ORDERS_INTAKE.dead) == 4, "dead")


def test_what_is_beyond_an_accounts_share_goes_into_the_bulk_lane_and_nothing_else(db, business):
    lanes = Lanes(burst=3, rate=0.001)
    another = account(db).id
    modest, flood = order_created(business.id), [order_created(another) for _ in range(4)]
    assert not take_in(*(said(o) for o in (*flood, modest)), lanes=lanes)
    take_in(said(status_changed(flood[0], IN_TRANSIT), 1), lanes=lanes)
    rows = db.execute(select(OutboxMessage.routing_key, OutboxMessage.type, OutboxMessage.body))
    keys = [(key, type_, decode(type_, body).account_id) for key, type_, body in rows]
    assert sorted(keys) == sorted(
        [
            ("order.recorded", "order.recorded", business.id),
            *[("bulk.order.recorded", "order.recorded", another)] * 4,
            ("bulk.order.status_recorded", "order.status_recorded", another),
        ]
    )
