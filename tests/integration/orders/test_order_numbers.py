"""Orders that have a number of their sender's: recorded under it, moved by it."""

import itertools
import json
import time
from datetime import UTC, date, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from msgspec import UNSET
from msgspec.structs import replace
from sqlalchemy import select

from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared import erased
from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract.events import decode
from shared.db.models import Order, OrderConflict, OrderStatusHistory, OutboxMessage, WaitingUpdate
from shared.db.session import transaction
from shared.ids import order_of_number
from shared.intake import bodies
from tests.integration.arrange import account, received

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ORDER = {
    "customer_details": {"name": "Zoe", "email": "zoe@shop.example"},
    "item_summary": "kettle",
    "address": "12 Marina Road",
}
URL = "https://track.carrier.example/JD0146"


@pytest.fixture
def business(db):
    return account(db)


def sent(business, body, key=None, seconds=0, **properties):
    """What the recorder gets of a request."""
    _, message = bodies.read(json.dumps(body).encode(), business.id, time.time(), None, key)
    event = decode(message.type, message.body)
    return received(
        event,
        id=UUID(message.message_id),
        time=NOW + timedelta(seconds=seconds),
        **properties,
    )


def numbered(business, number="A-1001", key=None, **changes):
    return sent(business, ORDER | {"order_number": number} | changes, key)


def update(business, status="IN_TRANSIT", number="A-1001", seconds=1, attempt=0, **changes):
    body = {"type": "order.status_changed", "order_number": number, "tracking_status": status}
    return sent(business, body | changes, seconds=seconds, attempt=attempt)


def take_in(*messages):
    with transaction() as session:
        handle = partial(record, lanes=Lanes(1_000, 100), unknown=Unknown(1_000))
        return handle(session, messages)


def the_order(db):
    db.rollback()
    db.expire_all()
    return db.scalars(select(Order)).one()


def facts(db, type_=None):
    db.rollback()
    rows = db.scalars(select(OutboxMessage).order_by(OutboxMessage.sequence))
    return [decode(r.type, r.body) for r in rows if type_ is None or r.type == type_]


def test_what_was_sent_is_in_the_books_and_in_the_fact(db, business):
    parcel = {"carrier": "Swift", "tracking_url": URL, "estimated_delivery": "2026-12-03"}
    take_in(numbered(business, metadata={"branch": "Lekki"}, **parcel))
    order = the_order(db)
    assert order.id == order_of_number(business.id, "A-1001")
    assert (order.order_number, order.sent_metadata) == ("A-1001", {"branch": "Lekki"})
    assert order.tracking == parcel
    (history,) = db.scalars(select(OrderStatusHistory))
    assert history.tracking == parcel
    (fact,) = facts(db)
    assert (fact.order_number, fact.tracking_url) == ("A-1001", URL)
    assert fact.estimated_delivery == date(2026, 12, 3)


def test_an_order_without_them_has_none_beside_one_that_has(db, business):
    take_in(numbered(business), sent(business, ORDER), sent(business, ORDER | {"metadata": {}}))
    db.rollback()
    numbers = [(o.order_number, o.sent_metadata, o.tracking) for o in db.scalars(select(Order))]
    assert sorted(numbers, key=str) == [("A-1001", None, None), *[(None, None, None)] * 2]
    assert [h.tracking for h in db.scalars(select(OrderStatusHistory))] == [None] * 3


def test_a_second_order_with_the_number_is_the_same_order(db, business):
    first = numbered(business)
    take_in(first)
    take_in(numbered(business), numbered(business, key="a key"), first)
    assert db.scalars(select(OrderConflict)).all() == []
    take_in(numbered(business, key="another", address="elsewhere"))
    assert the_order(db).address == "12 Marina Road"
    (conflict,) = db.scalars(select(OrderConflict))
    assert conflict.event["order_number"] == "A-1001"
    (told,) = facts(db, "order.not_taken")
    assert (told.what, told.order_number) == ("key_reused", "A-1001")


@pytest.mark.parametrize("changes", [{"metadata": {"branch": "Yaba"}}, {"carrier": "Swift"}])
def test_other_metadata_or_another_parcel_is_another_order_too(db, business, changes):
    take_in(numbered(business))
    take_in(numbered(business, **changes))
    assert len(facts(db, "order.not_taken")) == 1


def test_a_number_that_was_cancelled_stays_cancelled(db, business):
    cancelled = {"type": "order.cancelled", "order_number": "A-1001"}
    take_in(numbered(business), sent(business, cancelled, seconds=1))
    take_in(numbered(business, address="elsewhere"))
    assert the_order(db).tracking_status == "CANCELLED"
    assert [fact.TYPE for fact in facts(db)][-1] == "order.not_taken"


def test_the_same_number_of_another_account_is_another_order(db, business):
    take_in(numbered(business), numbered(account(db)))
    assert len(db.scalars(select(Order)).all()) == 2


def test_an_update_that_came_before_its_order_waits_for_it(db, business):
    early = update(business, carrier="Swift")
    assert set(take_in(early)) == {early.id}
    db.rollback()
    (waiting,) = db.scalars(select(WaitingUpdate))
    assert waiting.order_number == "A-1001"
    take_in(numbered(business))
    assert not take_in(early)
    order = the_order(db)
    assert (order.tracking_status, order.tracking) == ("IN_TRANSIT", {"carrier": "Swift"})


def test_one_that_is_given_up_is_told_by_its_number(db, business):
    late = update(business, attempt=MAX_ATTEMPTS)
    failures = take_in(late)
    assert "A-1001" in str(failures[late.id])
    (told,) = facts(db)
    assert (told.what, told.order_number) == ("update_given_up", "A-1001")


def test_an_order_without_a_number_goes_on_by_its_id(db, business):
    created = sent(business, ORDER)
    take_in(created)
    body = {
        "type": "order.status_changed",
        "order_id": str(created.data.order_id),
        "tracking_status": "DELIVERED",
    }
    assert not take_in(sent(business, body, seconds=1))
    assert the_order(db).tracking_status == "DELIVERED"
    assert not facts(db)[-1].order_number


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))))
def test_what_is_known_of_the_parcel_does_not_depend_on_the_arrival(db, business, arrival):
    said = [
        update(business, seconds=1, carrier="Swift", tracking_number="1"),
        update(business, seconds=2, tracking_number="2", tracking_url=URL),
        update(business, "DELIVERED", seconds=3),
    ]
    take_in(numbered(business))
    for place in arrival:
        take_in(said[place])
    order = the_order(db)
    assert order.tracking == {"tracking_number": "2", "tracking_url": URL}  # of another parcel
    assert order.tracking_status == "DELIVERED"
    history = db.scalars(select(OrderStatusHistory).order_by(OrderStatusHistory.at))
    assert [h.tracking for h in history] == [
        None,
        {"carrier": "Swift", "tracking_number": "1"},
        {"tracking_number": "2", "tracking_url": URL},
        None,
    ]


def test_the_customer_hears_where_to_follow_a_parcel_once(db, business):
    take_in(numbered(business), update(business))
    take_in(update(business, seconds=2, tracking_url=URL))
    take_in(update(business, seconds=3, tracking_url=URL))
    told = facts(db, "order.status_recorded")
    assert [(fact.order_number, fact.tracking_url or None) for fact in told] == [
        ("A-1001", None),
        ("A-1001", URL),
    ]


def test_a_number_that_a_recorder_of_before_has_left_out_is_told_all_the_same(db, business):
    created = numbered(business)
    take_in(replace_data(created, order_number=UNSET))
    take_in(update(business))
    assert facts(db, "order.status_recorded")[0].order_number == "A-1001"


def replace_data(message, **changes):
    return received(replace(message.data, **changes), id=message.id, time=message.time)


def test_nothing_is_added_to_an_order_whose_customer_was_erased(db, business):
    take_in(numbered(business))
    order = the_order(db)
    order.customer_email, order.order_number = erased.ADDRESS, None
    db.commit()
    take_in(update(business, "OUT_FOR_DELIVERY", carrier="Swift", tracking_url=URL))
    order = the_order(db)
    assert (order.tracking_status, order.tracking) == ("OUT_FOR_DELIVERY", None)
    assert [h.tracking for h in db.scalars(select(OrderStatusHistory))] == [None] * 2
