"""An update of an order that is not known: written down for its sender, and told when given up."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ingress.request_log.api import _awaited as awaited
from services.orders.__main__ import wire
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract import topology
from shared.bus.contract.errors import Retry
from shared.bus.contract.events import TrackingStatus, decode
from shared.bus.contract.message import message_for
from shared.db.models import Order, OutboxMessage, WaitingUpdate
from shared.db.session import transaction
from tests.integration.arrange import (
    account,
    consuming,
    depth,
    order_created,
    publish,
    received,
    status_changed,
    until,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def business(db):
    return account(db)


def take_in(*messages, unknown=None):
    with transaction() as session:
        handle = partial(record, lanes=Lanes(1_000, 100), unknown=unknown or Unknown(1_000))
        return handle(session, messages)


def states(db):
    db.rollback()
    return {row.event_id: row.given_up_at is not None for row in db.scalars(select(WaitingUpdate))}


def told(db):
    db.rollback()
    rows = db.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.type == "order.not_taken")
        .order_by(OutboxMessage.sequence)
    )
    return [(row.message_id, decode(row.type, row.body)) for row in rows]


def update_of(order, **properties):
    return received(status_changed(order, TrackingStatus.DELIVERED), time=NOW, **properties)


def test_a_batch_that_is_rolled_back_is_counted_once(db, business, engine):
    lanes, unknown = Lanes(3, 0.001), Unknown(2)
    handle = partial(record, lanes=lanes, unknown=unknown)
    batch = [received(order_created(business.id)), update_of(order_created(business.id))]
    for _ in range(5):
        with Session(engine) as session:
            handle(session, batch)
    with transaction() as session:
        assert handle(session, batch).keys() == {batch[1].id}
    assert not lanes.beyond_their_share([business.id])
    others = [update_of(order_created(business.id)) for _ in range(2)]
    with transaction() as session:
        assert handle(session, others).keys() == {others[0].id}


def test_it_waits_and_is_given_up_at_the_end(db, business):
    unheard = order_created(business.id)
    update = update_of(unheard)
    for attempt in range(MAX_ATTEMPTS):
        failures = take_in(update_of(unheard, id=update.id, attempt=attempt))
        assert isinstance(failures[update.id], Retry)
        assert states(db) == {update.id: False}
        assert told(db) == []
    take_in(update_of(unheard, id=update.id, attempt=MAX_ATTEMPTS))
    assert states(db) == {update.id: True}
    ((_, fact),) = told(db)
    assert (fact.what, fact.email) == ("update_given_up", business.email)
    assert (fact.order_id, fact.event_id) == (unheard.order_id, update.id)


def test_one_beyond_the_bound_is_given_up_at_once_and_is_no_dead_letter(db, business):
    unknown = Unknown(1)
    updates = [update_of(order_created(business.id)) for _ in range(3)]
    failures = take_in(*updates, unknown=unknown)
    (waiting,) = failures
    assert isinstance(failures[waiting], Retry)
    ended = [update.id for update in updates if update.id != waiting]
    assert states(db) == {update.id: update.id in ended for update in updates}
    ((_, fact),) = told(db)
    assert fact.event_id in ended


def test_one_whose_order_came_leaves_its_place_to_another(db, business):
    unknown = Unknown(1)
    order = order_created(business.id)
    first, again = update_of(order), update_of(order, attempt=1)
    assert take_in(first, unknown=unknown).keys() == {first.id}
    take_in(received(order, id=order.order_id, time=NOW), again, unknown=unknown)
    # An update that found its order at once has taken no place, and gives none back.
    take_in(update_of(order), unknown=unknown)
    second, third = (update_of(order_created(business.id)) for _ in range(2))
    assert take_in(second, unknown=unknown).keys() == {second.id}
    assert take_in(third, unknown=unknown) == {}
    assert states(db)[third.id] is True


@pytest.mark.usefixtures("retried_late")
def test_many_beyond_the_bound_fill_no_queue_of_others(settings, db, business, amqp_url):
    subscription = replace(
        *wire(settings).subscriptions,
        handle=partial(record, lanes=Lanes(1_000, 100), unknown=Unknown(1)),
    )
    updates = [status_changed(order_created(business.id), TrackingStatus.DELIVERED)] * 5
    updates += [status_changed(order_created(business.id), TrackingStatus.DELIVERED)]
    publish(
        amqp_url,
        *(message_for(one, source="tests", correlation_id=one.order_id) for one in updates),
    )
    with consuming(settings, subscription):
        until(lambda: len(states(db)) == len(updates), "handled")
    assert depth(amqp_url, topology.ORDERS_INTAKE.dead) == 0
    assert sum(depth(amqp_url, rung.name) for rung in topology.RETRY_DELAYS) == 1


def test_another_accounts_order_is_as_unknown_as_none(db, business):
    theirs = order_created(account(db).id)
    take_in(received(theirs, id=theirs.order_id, time=NOW))
    ours = order_created(business.id, order_id=theirs.order_id)
    update = update_of(ours, attempt=MAX_ATTEMPTS)
    take_in(update)
    assert states(db) == {update.id: True}
    assert [fact.account_id for _, fact in told(db)] == [business.id]


def test_a_day_of_them_is_one_email(db, business):
    for _ in range(3):
        take_in(*(update_of(order_created(business.id), attempt=MAX_ATTEMPTS) for _ in range(5)))
    assert len({id_ for id_, _ in told(db)}) == 1


def test_a_known_orders_update_is_not_written_down(db, business):
    created = order_created(business.id)
    assert not take_in(received(created, id=created.order_id, time=NOW), update_of(created))
    assert states(db) == {}
    assert told(db) == []


@pytest.mark.parametrize("is_put_back", [False, True], ids=["left dead", "put back"])
def test_what_is_told_of_an_update_is_what_becomes_of_it(db, business, is_put_back):
    """Whenever its order comes: it counts, or its sender is told that it does not."""
    for came_at in range(MAX_ATTEMPTS + 2):
        order = order_created(business.id)
        update = update_of(order)
        before = len(told(db))
        attempts = list(range(MAX_ATTEMPTS + 1))
        steps = [*attempts[:came_at], None, *attempts[came_at:]]
        if is_put_back:
            steps.append(0)
        for attempt in steps:
            if attempt is None:
                take_in(received(order, id=order.order_id, time=NOW))
            elif not take_in(update_of(order, id=update.id, attempt=attempt)):
                break
        counts = came_at <= MAX_ATTEMPTS or is_put_back
        db.rollback()
        assert (db.get_one(Order, order.order_id).tracking_status == "DELIVERED") is counts
        assert awaited(db, {update.id}) == ({} if counts else {update.id: True})
        assert len(told(db)) - before == (came_at > MAX_ATTEMPTS)
        # Sent again by who was told, it counts; and once.
        take_in(update_of(order))
        db.rollback()
        assert db.get_one(Order, order.order_id).tracking_status == "DELIVERED"
