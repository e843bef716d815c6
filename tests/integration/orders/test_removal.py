"""An order goes before its history, in pages: no reader and no recorder sees one with a hole."""

import threading

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from services.orders.__main__ import wire
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.removal import leaving, sweeping
from services.orders.unknown import Unknown
from shared.bus.consume import inbox
from shared.bus.contract.events import TrackingStatus, in_test
from shared.db import retention
from shared.db.models import Order, OrderConflict, OrderStatusHistory, RemovedOrder
from shared.db.session import transaction
from shared.ids import new_id
from tests.integration.arrange import (
    PATIENCE,
    access_token,
    account,
    ago,
    order_created,
    received,
    status_changed,
    until,
)


@pytest.fixture
def business(db):
    return account(db)


@pytest.fixture
def owner(engine):
    """A session of the tables' owner; the recorder may not run the ingress's function."""
    with Session(engine) as session:
        yield session


def take_in(*messages, session=None):
    def write(session):
        # As a batch is handled: what failed is new to the inbox.
        new = inbox.claim(session, "services.orders", [m.id for m in messages])
        those = [m for m in messages if m.id in new]
        failures = record(session, those, lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        inbox.release(session, "services.orders", failures)
        return failures

    if session is not None:
        return write(session)
    with transaction() as session:
        return write(session)


def long_one(business, entries=7, conflicts=2):
    """The messages of a test order with a history and other orders under its number."""
    order = in_test(order_created(business.id))
    told = [
        in_test(status_changed(order, TrackingStatus.IN_TRANSIT, f"{n}")) for n in range(entries)
    ]
    others = [
        in_test(order_created(business.id, order_id=order.order_id, item_summary=f"other {n}"))
        for n in range(conflicts)
    ]
    return [
        received(order, id=order.order_id),
        *(received(event, id=new_id()) for event in (*told, *others)),
    ]


def left(session):
    session.rollback()
    tables = (Order, OrderStatusHistory, OrderConflict, RemovedOrder)
    return [session.scalar(select(func.count()).select_from(table)) for table in tables]


def hold_an_entry(session):
    return session.scalar(
        select(OrderStatusHistory.event_id)
        .order_by(OrderStatusHistory.event_id)
        .limit(1)
        .with_for_update()
    )


def test_what_another_holds_of_a_history_holds_up_no_clearing(api):
    with api.session() as session:
        mine = account(session)
        for messages in (long_one(mine), long_one(mine)):
            take_in(*messages, session=session)
        session.commit()
    me = {"Authorization": f"Bearer {access_token(mine.id)}"}
    with api.session() as other:
        assert hold_an_entry(other)
        first = api.http.delete("/orders/test/", headers=me)
        assert (first.status_code, first.json()) == (200, {"orders": 2, "more": True})
        assert api.http.get("/orders/?mode=test", headers=me).json()["results"] == []
    assert api.http.delete("/orders/test/", headers=me).json() == {"orders": 0, "more": False}
    with api.session() as session:
        assert left(session) == [0, 0, 0, 0]


def test_two_calls_at_once_clear_all_and_each_says_what_it_cleared(api):
    with api.session() as session:
        mine = account(session)
        orders = [in_test(order_created(mine.id)) for _ in range(20)]
        take_in(*(received(order, id=order.order_id) for order in orders), session=session)
        session.commit()
    me = {"Authorization": f"Bearer {access_token(mine.id)}"}
    answers = []
    calls = [
        threading.Thread(
            target=lambda: answers.append(api.http.delete("/orders/test/", headers=me).json())
        )
        for _ in range(3)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join(PATIENCE)
    assert sum(answer["orders"] for answer in answers) == 20
    assert api.http.delete("/orders/test/", headers=me).json() == {"orders": 0, "more": False}
    with api.session() as session:
        assert left(session) == [0, 0, 0, 0]


def test_a_history_goes_in_pages_and_its_order_comes_back_whole(
    settings, db, owner, business, monkeypatch
):
    monkeypatch.setattr(sweeping, "ROWS", 3)
    messages = long_one(business)
    assert not take_in(*messages)
    whole = left(db)
    assert whole == [1, 8, 2, 0]
    assert owner.scalar(select(func.clear_test_orders(business.id, 500))) == 1
    owner.commit()
    assert left(db) == [0, 8, 2, 1]
    # A copy of the former request waits; it is not dropped as known.
    assert set(take_in(messages[0])) == {messages[0].id}
    for rest in ([0, 5, 2, 1], [0, 2, 2, 1]):
        with transaction() as session:
            assert sweeping.sweep(session) == 3
        assert left(db) == rest
        for again in (messages[0], received(messages[0].data, id=new_id())):
            assert set(take_in(again)) == {again.id}
        assert left(db) == rest
    sweeping.sweep_all(db)
    assert left(db) == [0, 0, 0, 0]
    assert not take_in(*messages)
    assert left(db) == whole


def test_an_order_that_is_removed_under_a_batch_is_taken_in_after_its_history_has_gone(
    settings, db, owner, business
):
    messages = long_one(business)
    take_in(*messages)
    assert owner.scalar(select(func.clear_test_orders(business.id, 500))) == 1
    errors = []

    def again():
        try:
            take_in(received(messages[0].data, id=new_id()))
        except leaving.StillLeavingError as error:
            errors.append(error)

    recorder = threading.Thread(target=again)
    recorder.start()
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                   " AND datname = current_database()")  # fmt: skip
    until(lambda: db.rollback() or db.scalar(waiting), "it waits for the order's removal")
    owner.commit()
    recorder.join(PATIENCE)
    assert len(errors) == 1
    assert left(db) == [0, 8, 2, 1]


def test_what_the_version_before_has_recorded_again_stays_whole(settings, db, owner, business):
    messages = long_one(business)
    take_in(*messages)
    owner.scalar(select(func.clear_test_orders(business.id, 500)))
    owner.add(
        Order(
            id=messages[0].data.order_id, account_id=business.id, customer_name="", address="",
            customer_email="zoe@shop.example", customer_phone="", item_summary="", is_test=True,
            tracking_status="PENDING", status_at=ago(), accepted_at=ago(),
            status_event_id=messages[0].id,
        )
    )  # fmt: skip
    owner.commit()
    sweeping.sweep_all(db)
    assert left(db) == [1, 8, 2, 0]


def test_nobody_waits_for_an_erasure_that_holds_an_expired_orders_history(
    settings, db, business, engine
):
    for messages in (long_one(business), long_one(business)):
        take_in(*messages)
    old = {"at": ago(days=31)}
    db.execute(text("UPDATE orders SET accepted_at = :at, status_at = :at, recorded_at = :at"), old)
    db.commit()
    with Session(engine) as other:
        assert hold_an_entry(other)
        with transaction() as session:
            session.execute(text("SET LOCAL lock_timeout = '1s'"))
            assert retention.remove(session, retention.TEST_ORDERS, 30)[0] == 2
        sweeping.sweep_all(db)
        assert left(db) == [0, 1, 0, 1]
    sweeping.sweep_all(db)
    assert left(db) == [0, 0, 0, 0]


def test_the_recorder_sweeps(settings):
    assert sweeping.sweep_all in [job.run for job in wire(settings).jobs]


def test_the_inbox_knows_what_retention_has_removed(settings, db, business):
    """A redelivery of what is over is no new order; of a cleared test order it is."""
    messages = long_one(business)
    take_in(*messages)
    db.execute(
        text("UPDATE orders SET accepted_at = :at, status_at = :at, recorded_at = :at"),
        {"at": ago(days=31)},
    )
    db.commit()
    with transaction() as session:
        retention.remove(session, retention.TEST_ORDERS, 30)
    sweeping.sweep_all(db)
    assert not take_in(*messages)
    assert left(db) == [0, 0, 0, 0]


def test_a_connection_keeps_no_plan_for_the_empty_table(engine, owner):
    """A page took seconds after a large removal: each row was compared with each of 5,000 ids."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        other.execute(text("INSERT INTO removed_orders VALUES (gen_random_uuid(), :id)"),
                      {"id": new_id()})  # fmt: skip
        other.execute(text("DELETE FROM removed_orders"))
        other.execute(text("VACUUM ANALYZE removed_orders"))
    mine = new_id()
    for _ in range(8):
        assert sweeping.sweep(owner, mine) == 0
    for account_id, many in ((mine, 100_000), (new_id(), 100_000)):
        filled = text("INSERT INTO removed_orders SELECT gen_random_uuid(), :id "
                      "FROM generate_series(1, :many)")  # fmt: skip
        owner.execute(filled, {"id": account_id, "many": many})
    owner.execute(text("SET LOCAL statement_timeout = '2s'"))
    assert sweeping.sweep(owner, mine) == sweeping.sweep(owner) == sweeping.ROWS
