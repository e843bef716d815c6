"""Test orders: recorded apart, told to their own business alone, and out of the live ones' way."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import ProgrammingError

from services.orders.__main__ import wire
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.contract import topology
from shared.bus.contract.events import (
    EVENT_TYPES,
    IN_TEST,
    OrderCancelled,
    OrderNotTaken,
    OrderTestCreated,
    TrackingStatus,
    decode,
    encode,
    in_test,
)
from shared.bus.contract.message import message_for
from shared.db import retention
from shared.db.models import InboxEntry, Order, OrderConflict, OutboxMessage, WaitingUpdate
from shared.db.session import transaction
from shared.ids import new_id, order_of_key
from shared.intake import bodies
from tests.integration.arrange import (
    access_token,
    account,
    consuming,
    depth,
    order_created,
    publish,
    received,
    status_changed,
    until,
)

BODY = b"""{"customer_details": {"name": "Zo", "email": "zoe@shop.example"},
            "item_summary": "a kettle", "address": "Lagos"}"""


@pytest.fixture
def business(db):
    return account(db)


def made(business, **changes):
    return in_test(order_created(business.id, **changes))


def take_in(*events, lanes=None, unknown=None):
    messages = [
        received(event, id=event.order_id if hasattr(event, "address") else new_id())
        for event in events
    ]
    with transaction() as session:
        return record(
            session,
            messages,
            lanes=lanes or Lanes(1_000, 100),
            unknown=unknown or Unknown(1_000),
        )


def rows(db):
    db.rollback()
    return db.scalars(select(Order).order_by(Order.accepted_at)).all()


def told(db):
    db.rollback()
    found = db.scalars(select(OutboxMessage).order_by(OutboxMessage.sequence))
    return [(row.routing_key, decode(row.type, row.body)) for row in found]


def test_each_event_about_an_order_has_its_like():
    about = {
        event
        for event in EVENT_TYPES.values()
        if event.EXCHANGE == topology.INTAKE or hasattr(event, "customer_email")
    }
    assert set(IN_TEST) == {event for event in about if not event.IS_TEST}
    assert set(IN_TEST.values()) == {event for event in about if event.IS_TEST}
    for base, event in IN_TEST.items():
        # Whom the sender named, for an erasure to find: a fact of a live order is mailed there.
        more = ("order_email",) if base.EXCHANGE == "events" else ()
        assert event.__struct_fields__ == base.__struct_fields__ + more
        assert event.TYPE.startswith("order.test_")


def test_no_body_makes_itself_a_test_or_a_live_order():
    assert not any(EVENT_TYPES[type_].IS_TEST for type_ in bodies.BODIES)
    said = BODY[:-1] + b', "is_test": true, "type": "order.test_created"}'
    with pytest.raises(bodies.BodyError, match=r"\$.type must be one of"):
        bodies.read(said, new_id(), time.time(), None)
    _, message = bodies.read(
        BODY[:-1] + b', "is_test": false}', new_id(), time.time(), None, is_test=True
    )
    assert message.type == "order.test_created"


def test_one_key_is_two_orders():
    account_id = new_id()
    live, _ = bodies.read(BODY, account_id, time.time(), None, "key")
    test, message = bodies.read(BODY, account_id, time.time(), None, "key", is_test=True)
    again, copy = bodies.read(BODY, account_id, time.time(), None, "key", is_test=True)
    assert live != test == again
    assert message.message_id == copy.message_id
    assert (live, test) == tuple(order_of_key(account_id, "key", is_test=t) for t in (False, True))


def test_it_is_recorded_as_it_came_and_told_to_its_business(settings, db, business):
    order = made(business)
    take_in(order, in_test(status_changed(order, TrackingStatus.IN_TRANSIT, "Left the depot.")))
    take_in(
        in_test(OrderCancelled(order_id=order.order_id, account_id=business.id, reason="Gone."))
    )
    (row,) = rows(db)
    assert (row.is_test, row.customer_email) == (True, "zoe@shop.example")
    assert row.tracking_status == "CANCELLED"
    facts = told(db)
    assert [key for key, _ in facts] == [
        "bulk.order.test_recorded",
        "bulk.order.test_status_recorded",
        "bulk.order.test_cancellation_recorded",
    ]
    for _, fact in facts:
        assert (fact.customer_email, fact.order_email) == (business.email, "zoe@shop.example")
        assert encode(fact).count(b"zoe@shop.example") == 1


def test_either_mode_leaves_the_orders_of_the_other_alone(settings, db, business):
    live, test = order_created(business.id), made(business)
    take_in(live, test)
    failures = take_in(
        in_test(status_changed(live, TrackingStatus.DELIVERED)),
        status_changed(
            order_created(business.id, order_id=test.order_id), TrackingStatus.CANCELLED
        ),
    )
    assert {row.tracking_status for row in rows(db)} == {"PENDING"}
    assert len(failures) == 1  # the live one waits, as for any order that is not known
    assert len(told(db)) == 2


def test_a_test_update_of_no_order_is_noted_and_waits_nowhere(settings, db, business, amqp_url):
    lost = in_test(status_changed(made(business), TrackingStatus.DELIVERED))
    with consuming(settings, *wire(settings).subscriptions):
        publish(amqp_url, message_for(lost, source="tests", correlation_id=lost.order_id))
        until(
            lambda: db.rollback() or db.scalar(select(func.count()).select_from(InboxEntry)),
            "handled",
        )
    for queue in (topology.ORDERS_INTAKE.dead, *(rung.name for rung in topology.RETRY_DELAYS)):
        assert depth(amqp_url, queue) == 0
    (noted,) = db.scalars(select(WaitingUpdate))
    assert noted.given_up_at is not None
    assert told(db) == []


def test_another_order_under_a_test_key_uses_up_no_days_warning(settings, db, business):
    order = made(business)
    other = made(business, order_id=order.order_id, item_summary="another")
    take_in(order)
    with transaction() as session:
        record(session, [received(other)], lanes=Lanes(10, 1), unknown=Unknown(10))
    assert len(db.scalars(select(OrderConflict)).all()) == 1
    assert not [fact for _, fact in told(db) if isinstance(fact, OrderNotTaken)]


def test_a_flood_of_tests_puts_no_live_order_into_the_bulk_lane(settings, db, business):
    lanes = Lanes(3, 0.001)
    take_in(*(made(business) for _ in range(10)), lanes=lanes)
    take_in(order_created(business.id), lanes=lanes)
    assert told(db)[-1][0] == "order.recorded"


def test_a_business_that_is_not_known_is_told_nothing(settings, db):
    take_in(in_test(order_created(new_id())))
    assert len(rows(db)) == 1
    assert told(db) == []


def test_a_recorder_of_the_version_before_would_refuse_it():
    # It would know no such type: a dead letter, and not an email to the customer.
    order = in_test(order_created())
    assert isinstance(order, OrderTestCreated)
    assert OrderTestCreated.TYPE not in {"order.created", "order.status_changed", "order.cancelled"}


def test_it_ends_when_its_time_is_over_and_no_live_one_with_it(settings, db, business):
    take_in(order_created(business.id), made(business), made(business))
    old = datetime.now(UTC) - timedelta(days=31)
    db.execute(update(Order).values(accepted_at=old, status_at=old, recorded_at=old))
    db.commit()
    with transaction() as session:
        assert retention.count(session, retention.TEST_ORDERS, 30) == 2
        assert retention.remove(session, retention.TEST_ORDERS, 30)[0] == 2
    assert [row.is_test for row in rows(db)] == [False]


def test_clearing_is_an_accounts_own_and_takes_no_live_order(api):
    with api.session() as session:
        mine, other = account(session), account(session)
        for business in (mine, other):
            for event in (order_created(business.id), made(business), made(business)):
                record(
                    session,
                    [received(event, id=event.order_id)],
                    lanes=Lanes(10, 1),
                    unknown=Unknown(10),
                )
        session.commit()
    me = {"Authorization": f"Bearer {access_token(mine.id)}"}
    assert api.http.delete("/orders/test/", headers=me).json() == {"orders": 2, "more": False}
    assert api.http.delete("/orders/test/", headers=me).json() == {"orders": 0, "more": False}
    assert api.http.delete("/orders/test/").status_code == 401
    with api.session() as session:
        left = session.execute(
            select(Order.account_id, Order.is_test, func.count())
            .where(Order.account_id.in_((mine.id, other.id)))
            .group_by(Order.account_id, Order.is_test)
        ).all()
        assert sorted((a == mine.id, t, n) for a, t, n in left) == [
            (False, False, 1),
            (False, True, 2),
            (True, False, 1),
        ]
        counts = session.execute(
            text("SELECT count(*) FROM order_status_history h "
                 "WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = h.order_id)")
        )  # fmt: skip
        assert counts.scalar() == 0


def test_a_recorder_may_clear_nobodys(settings, db):
    with pytest.raises(ProgrammingError, match="permission denied"), transaction() as session:
        session.scalar(select(func.clear_test_orders(new_id(), 1)))
