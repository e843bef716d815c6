"""Recording what senders said, a batch at a time, in a handful of statements whatever its size."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec import UNSET
from msgspec.structs import replace
from sqlalchemy import RowMapping
from sqlalchemy.orm import Session

from services.orders import SOURCE, conflicts, rows, sender_warnings, tracking, waiting_updates
from services.orders.lanes import Lanes
from services.orders.progress import Position, is_news, moves
from services.orders.rows import Businesses, Said
from services.orders.sender_warnings import NotTaken
from services.orders.shops import awaited, former_ids
from services.orders.tracking import Tracking
from services.orders.unknown import Unknown, is_young
from services.orders.waiting_updates import Update
from shared import erased
from shared.bus import outbox
from shared.bus.consume.batch import Failures
from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract import topology
from shared.bus.contract.events import (
    CREATED,
    Event,
    OrderCancellationRecorded,
    OrderCancelled,
    OrderCreated,
    OrderNotPlaced,
    OrderPlaced,
    OrderRecorded,
    OrderStatusChanged,
    OrderStatusRecorded,
    OrderUnaddressed,
    TrackingStatus,
    in_test,
)
from shared.bus.contract.message import Message, Received, message_for
from shared.ids import follow_up_id, new_id

DERIVED = 5  # the version of a UUID (RFC 9562) that an idempotent request's message has
Accounts = frozenset[UUID]


def record(
    session: Session, messages: Sequence[Received[Any]], *, lanes: Lanes, unknown: Unknown
) -> Failures:
    """Record a batch: orders, history, one fact for each effect.

    Args:
        session: the transaction.
        messages: the batch.
        lanes: tells which accounts' facts go into the bulk lane.
        unknown: tells what becomes of updates of orders that are not known, or not the sender's.

    Returns:
        Those of them that come back.
    """
    messages, again = former_ids.renamed(session, messages)
    # By it the request log leads to the order.
    rows.add_history(session, [Said(m, m.data.tracking_status, "", False, {}) for m in again])
    changes = [m for m in messages if isinstance(m.data, OrderCancelled) or _is_change(m)]
    unaddressed = [
        m for m in messages if isinstance(m.data, OrderUnaddressed) and not m.data.is_change
    ]
    not_placed = [m for m in messages if isinstance(m.data, OrderNotPlaced)]
    awaited.remember(session, [*not_placed, *unaddressed])
    created = [m for m in messages if m.type in CREATED]
    placed = awaited.sort(session, changes, created)
    created += placed.created
    updates = [m for m in messages if isinstance(m.data, OrderStatusChanged)] + placed.updates
    live = (m.data.account_id for m in (*created, *updates) if not m.data.IS_TEST)
    bulk = lanes.beyond_their_share(live)
    facts, recorded = _create(session, created, bulk, updates)
    # Another word, or another recorder, was first, and knows nothing of what these say.
    late = [m for m in created if m.data.order_id not in recorded and awaited.is_word(m)]
    updates += late
    failures: dict[UUID, Exception] = {}
    told = (*placed.done, *placed.unaddressed, *placed.noted)
    waiting_updates.forget(session, (*told, *late))
    for message in (*placed.created, *told):
        unknown.came(message)
    for message in placed.early:
        _look_again(message, failures, unknown)
    given_up = waiting_updates.note(session, placed.early, failures)
    if updates:
        facts += _update(session, updates, failures, bulk, unknown)
    # Said again out of the journal it is no news, and may be days old.
    news = [m for m in (*unaddressed, *placed.unaddressed) if m.replay is None]
    not_taken = [NotTaken("no_email_address", m.data, m.id) for m in news]
    # Whoever touches all the old orders of a shop need not be told that they are not here.
    young = {m.id for m in placed.early if is_young(m) and m.replay is None}
    not_taken += [one for one in given_up if one.event_id in young]
    told_of = [one for one in not_taken if not one.said.IS_TEST]
    outbox.add(session, facts + sender_warnings.facts(session, told_of))
    return failures


def _is_change(message: Received[Any]) -> bool:
    """Whether a shop says of an order that is placed how it is now."""
    data = message.data
    return isinstance(data, OrderPlaced) or (isinstance(data, OrderUnaddressed) and data.is_change)


def _look_again(message: Update, failures: dict[UUID, Exception], unknown: Unknown) -> None:
    """Have a message come back by the hour, whose order may be on its way; then it is given up."""
    # What it is waited for by may have failed itself.
    is_over = message.data.IS_TEST or message.attempt >= MAX_ATTEMPTS
    error = None if is_over else unknown.failure(message)
    if error is None:
        unknown.came(message)
    else:
        failures[message.id] = error


def _create(
    session: Session,
    messages: Sequence[Received[OrderCreated]],
    bulk: Accounts,
    updates: Sequence[Update],
) -> tuple[list[Message], set[UUID]]:
    first = {m.data.order_id: m for m in reversed(messages)}
    if not first:
        return [], set()
    created = rows.insert(session, first.values())
    recorded = [m for id_, m in first.items() if id_ in created]
    rows.add_history(
        session,
        [Said(m, m.data.tracking_status, "", True, tracking.said_in(m.data)) for m in recorded],
    )
    not_taken: list[NotTaken] = []
    if len(recorded) < len(messages):
        # A shop's word how an order is now is no other order.
        done = {m.id for m in messages if isinstance(m.data, OrderPlaced)}
        done |= {m.id for m in recorded}
        others = [m for m in messages if m.id not in done]
        if others:
            # With those that are to be moved, in one order: what another recorder keeps beside an
            # order this one may move, and the other way round.
            rows.lock(session, {m.data.order_id for m in (*messages, *updates)})
        not_taken = [
            NotTaken("key_reused", m.data, m.id)
            for m in conflicts.keep(session, others)
            if not m.data.IS_TEST
        ]
    businesses = rows.businesses(session, {m.data.account_id for m in recorded})
    facts = (
        _fact(
            m,
            OrderRecorded(
                order_id=m.data.order_id,
                account_id=m.data.account_id,
                company_name=_name(businesses, m.data.account_id),
                customer_name=m.data.customer_details.name,
                customer_email=m.data.customer_details.email,
                item_summary=m.data.item_summary,
                address=m.data.address,
                tracking_status=m.data.tracking_status,
                order_number=m.data.order_number,
                carrier=m.data.carrier,
                tracking_number=m.data.tracking_number,
                tracking_url=m.data.tracking_url,
                estimated_delivery=m.data.estimated_delivery,
            ),
            bulk,
            businesses,
        )
        for m in recorded
    )
    return [*filter(None, facts), *sender_warnings.facts(session, not_taken)], created


def _update(
    session: Session,
    updates: Sequence[Update],
    failures: dict[UUID, Exception],
    bulk: Accounts,
    unknown: Unknown,
) -> list[Message]:
    orders = rows.lock(session, {m.data.order_id for m in updates})
    businesses = rows.businesses(session, {row["account_id"] for row in orders.values()})
    positions = {
        id_: Position(
            TrackingStatus(row["tracking_status"]), row["status_at"], row["status_event_id"]
        )
        for id_, row in orders.items()
    }
    parcels = {
        id_: tracking.stored(row["tracking"], row["tracking_said"]) for id_, row in orders.items()
    }
    accepted_at = {id_: row["accepted_at"] for id_, row in orders.items()}
    placing = awaited.placing(session, updates, accepted_at)
    again = {m.id for m in placing.cancelled}
    known = conflicts.recorded(session, [m.id for m in updates if m.id.version == DERIVED]) - again
    moved: set[UUID] = set()
    tracked: set[UUID] = set()
    history: list[Said] = []
    facts: list[Message] = []
    lost: list[Update] = []
    for message in sorted((*updates, *placing.cancelled), key=lambda m: (m.time, m.id)):
        order_id = message.data.order_id
        row = orders.get(order_id)
        if row is None or _is_anothers(row, message):
            lost.append(message)
            # A test waits on no ladder, where it would stand among those that matter.
            error = None if message.data.IS_TEST else unknown.failure(message)
            if error is not None:
                failures[message.id] = error
            continue
        unknown.came(message)
        if message.id in known:
            continue
        if not awaited.has_moved(message.data) and message.time >= row["accepted_at"]:
            continue  # that it is placed is known from before
        status, note, said = _said(message)
        if row["customer_email"] == erased.ADDRESS:
            # It may be about the person, who is told nothing any more.
            note, said = erased.EMPTY, {}
        current, update = positions[order_id], Position(status, message.time, message.id)
        parcel = tracking.merged(order_id, parcels[order_id], said, update)
        tells_more = tracking.values(parcel) != tracking.values(parcels[order_id])
        if parcel != parcels[order_id]:
            parcels[order_id] = parcel
            tracked.add(order_id)
        placed_at = min(row["accepted_at"], placing.since.get(order_id, row["accepted_at"]))
        counts = moves(order_id, current, update) and not awaited.is_over(message, placed_at)
        # Of one that has not moved it counts that it was placed.
        counts = counts and awaited.has_moved(message.data)
        history.append(Said(message, status, note, counts, said))
        if not counts:
            continue
        positions[order_id] = update
        moved.add(order_id)
        if is_news(current, update, note, tells_more=tells_more):
            name = _name(businesses, row["account_id"])
            fact = _progress(row, name, current, message.data, note, status, parcel)
            facts += filter(None, [_fact(message, fact, bulk, businesses)])
    rows.add_history(session, history)
    rows.apply(session, again & {said.message.id for said in history if said.counts})
    rows.move(session, {order_id: positions[order_id] for order_id in moved})
    rows.track(session, {order_id: parcels[order_id] for order_id in tracked})
    given_up = waiting_updates.note(session, lost, failures)
    told = [one for one in given_up if not one.said.IS_TEST]
    return facts + sender_warnings.facts(session, told)


def _is_anothers(row: RowMapping, message: Update) -> bool:
    """Whether an order is another account's than its update's, or of the other mode."""
    return bool(
        row["account_id"] != message.data.account_id or row["is_test"] != message.data.IS_TEST
    )


def _name(businesses: Businesses, account_id: UUID) -> str:
    business = businesses.get(account_id)
    return "" if business is None else business.company_name


def _said(message: Update) -> tuple[TrackingStatus, str, dict[str, str]]:
    data = message.data
    if isinstance(data, OrderCancelled):
        return TrackingStatus.CANCELLED, data.reason, {}
    note = data.note if isinstance(data, OrderStatusChanged) else ""
    status = data.tracking_status or TrackingStatus.PENDING  # one that has none is no update
    return status, note, tracking.said_in(data)


def _progress(
    row: RowMapping,
    company_name: str,
    current: Position,
    said: OrderStatusChanged | OrderCancelled | OrderCreated | OrderUnaddressed,
    note: str,
    status: TrackingStatus,
    parcel: Tracking,
) -> Event:
    common: dict[str, Any] = {
        "order_id": row["id"],
        "account_id": row["account_id"],
        "company_name": company_name,
        "customer_name": row["customer_name"],
        "customer_email": row["customer_email"],
        "item_summary": row["item_summary"],
        "tracking_status": status,
        # A recorder of the version before has written none down.
        "order_number": row["order_number"] or said.order_number,
        "tracking_link": row["tracking_link"] or UNSET,
    }
    if status is TrackingStatus.CANCELLED:
        return OrderCancellationRecorded(**common, reason=note)
    common |= tracking.as_told(tracking.values(parcel))
    return OrderStatusRecorded(**common, previous_status=current.status, note=note)


def _fact(
    cause: Received[Any], fact: Event, bulk: Accounts, businesses: Businesses
) -> Message | None:
    """The fact that is told; None of a test order whose business is not known."""
    # The same id whenever it is recorded, also after the tables were lost and the journal was
    # replayed: nobody is told twice. An order is recorded once, whichever message brought it.
    told = cause.data.order_id if isinstance(fact, OrderRecorded) else cause.id
    message_id = follow_up_id(told, fact.TYPE)
    is_test = cause.data.IS_TEST
    if is_test:
        # Whom the sender named is not whom it is for: nothing further on can mail them.
        business = businesses.get(cause.data.account_id)
        if business is None:
            return None
        # Cleared and sent again, it is told again.
        message_id = new_id()
        fact = in_test(
            fact, customer_email=business.email, order_email=getattr(fact, "customer_email", "")
        )
    message = message_for(
        fact,
        source=SOURCE,
        correlation_id=cause.data.order_id,
        message_id=message_id,
        time=datetime.now(UTC),
        traceparent=cause.traceparent,
    )
    if is_test or cause.data.account_id in bulk:
        return replace(message, routing_key=topology.BULK + message.routing_key)
    return message
