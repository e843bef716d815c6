"""Records orders and their updates in batches, in a fixed number of statements each."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any
from uuid import UUID

from msgspec import UNSET
from msgspec.structs import replace
from sqlalchemy import RowMapping
from sqlalchemy.event import listen
from sqlalchemy.orm import Session

from services.orders import SOURCE, conflicts, rows, sender_warnings, tracking, waiting_updates
from services.orders.lanes import Lanes
from services.orders.progress import Position, applies, is_news
from services.orders.removal import leaving
from services.orders.rows import Businesses, Entry
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

DERIVED = 5  # the UUID version (RFC 9562) of an idempotent request's message id
Accounts = frozenset[UUID]


def record(
    session: Session, messages: Sequence[Received[Any]], *, lanes: Lanes, unknown: Unknown
) -> Failures:
    """Record a batch: orders, history, and one fact for each effect.

    Args:
        session: the transaction.
        messages: the batch, in the order of arrival.
        lanes: decides which accounts' facts go into the bulk lane.
        unknown: decides whether updates of unknown orders are retried.

    Returns:
        By message id, the errors of messages to retry.
    """
    _count_once(session, lanes, unknown)
    failures: dict[UUID, Exception] = {}
    messages = leaving.set_aside(session, messages, failures)
    messages, again = former_ids.renamed(session, messages)
    # The history entry links the request log to the order.
    rows.add_history(session, [Entry(m, m.data.tracking_status, "", False, {}) for m in again])
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
    # Another message or recorder created the order first; these may still have news about it.
    late = [m for m in created if m.data.order_id not in recorded and awaited.is_state(m)]
    updates += late
    # Of equal timestamps the later arrival counts. Stored cancellations arrived earlier.
    arrival = {m.id: place for place, m in enumerate(messages)}
    updates.sort(key=lambda m: arrival.get(m.id, -1))
    settled = (*placed.done, *placed.unaddressed, *placed.noted)
    waiting_updates.forget(session, (*settled, *late))
    for message in (*placed.created, *settled):
        unknown.settled(message)
    for message in placed.early:
        _retry(message, failures, unknown)
    given_up = waiting_updates.note(session, placed.early, failures)
    if updates:
        facts += _update(session, updates, failures, bulk, unknown)
    # A message replayed from the journal is no news, and may be days old.
    news = [m for m in (*unaddressed, *placed.unaddressed) if m.replay is None]
    not_taken = [NotTaken("no_email_address", m.data, m.id) for m in news]
    warned = [one for one in not_taken if not one.event.IS_TEST]
    warned += _worth_a_warning(given_up, placed.early)
    outbox.add(session, facts + sender_warnings.facts(session, warned))
    return failures


def _count_once(session: Session, *counted: Lanes | Unknown) -> None:
    """Keep this batch's counts when it commits, and undo those of one that was rolled back.

    A batch that fails is handled again, message by message.
    """
    for one in counted:
        one.undo()

    def keep(_: Session) -> None:
        for one in counted:
            one.keep()

    listen(session, "after_commit", keep, once=True)


def _worth_a_warning(given_up: Sequence[NotTaken], messages: Sequence[Update]) -> list[NotTaken]:
    """Return those among `given_up` that their business gets an email about."""
    news = {
        m.id
        for m in messages
        # A message replayed from the journal is no news. A bulk edit of a shop's old orders needs
        # no email that they are unknown here.
        if not m.data.IS_TEST
        and m.replay is None
        and (is_young(m) or not awaited.is_of_platform(m.data))
    }
    return [one for one in given_up if one.event_id in news]


def _is_change(message: Received[Any]) -> bool:
    """Return whether a message is a shop's about the present state of a placed order."""
    data = message.data
    return isinstance(data, OrderPlaced) or (isinstance(data, OrderUnaddressed) and data.is_change)


def _retry(message: Update, failures: dict[UUID, Exception], unknown: Unknown) -> None:
    """Have a message retried whose order may be on its way; after the last attempt it is dropped.

    The message that would create the order may have failed itself.
    """
    is_over = message.data.IS_TEST or message.attempt >= MAX_ATTEMPTS
    error = None if is_over else unknown.failure(message)
    if error is None:
        unknown.settled(message)
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
    entries = [
        Entry(m, m.data.tracking_status, "", True, tracking.fields_of(m.data)) for m in recorded
    ]
    leaving.check(rows.add_history(session, entries))
    not_taken: list[NotTaken] = []
    if len(recorded) < len(messages):
        # A shop's message about an order's present state is no other order.
        done = {m.id for m in messages if isinstance(m.data, OrderPlaced)}
        done |= {m.id for m in recorded}
        others = [m for m in messages if m.id not in done]
        if others:
            # Together with the orders to update, by id: two recorders may each keep a conflict with
            # an order that the other updates.
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
    anew = {m.id for m in placing.cancelled}
    known = conflicts.recorded(session, [m.id for m in updates if m.id.version == DERIVED]) - anew
    moved: set[UUID] = set()
    tracked: set[UUID] = set()
    history: list[Entry] = []
    facts: list[Message] = []
    # Of messages replayed from the journal only the last fact of an order is sent.
    again: dict[UUID, list[Message]] = {}
    lost: list[Update] = []
    # Stable: of one timestamp in the order of arrival.
    for message in sorted((*updates, *placing.cancelled), key=lambda m: m.time):
        order_id = message.data.order_id
        row = orders.get(order_id)
        if row is None or _is_anothers(row, message):
            lost.append(message)
            # A test order's update is not retried: it would take a place in the delay queues.
            error = None if message.data.IS_TEST else unknown.failure(message)
            if error is not None:
                failures[message.id] = error
            continue
        unknown.settled(message)
        if message.id in known:
            continue
        if not awaited.has_moved(message.data) and message.time >= row["accepted_at"]:
            continue  # it says only that the order is placed, which is known
        status, note, fields = _content(message)
        if row["customer_email"] == erased.ADDRESS:
            # They may be about the erased person, who gets no more emails.
            note, fields = erased.EMPTY, {}
        by_arrival = awaited.is_of_platform(message.data)
        current, update = positions[order_id], Position(status, message.time, message.id)
        parcel = tracking.merged(order_id, parcels[order_id], fields, update, by_arrival=by_arrival)
        tells_more = tracking.values(parcel) != tracking.values(parcels[order_id])
        if parcel != parcels[order_id]:
            parcels[order_id] = parcel
            tracked.add(order_id)
        placed_at = min(row["accepted_at"], placing.since.get(order_id, row["accepted_at"]))
        counts = applies(order_id, current, update, by_arrival=by_arrival)
        counts = counts and not awaited.is_over(message, placed_at)
        # A state without a status only shows that the order was placed.
        counts = counts and awaited.has_moved(message.data)
        counts = counts and not awaited.is_refund_of_sent(message.data, current.status)
        history.append(Entry(message, status, note, counts, fields))
        if not counts:
            continue
        positions[order_id] = update
        moved.add(order_id)
        if is_news(current, update, note, tells_more=tells_more):
            name = _name(businesses, row["account_id"])
            fact = _progress(row, name, current, message.data, note, status, parcel)
            found = [*filter(None, [_fact(message, fact, bulk, businesses)])]
            again[order_id] = found if message.replay else []
            facts += [] if message.replay else found
    rows.add_history(session, history)
    rows.apply(session, anew & {entry.message.id for entry in history if entry.counts})
    rows.move(session, {order_id: positions[order_id] for order_id in moved})
    rows.track(session, {order_id: parcels[order_id] for order_id in tracked})
    given_up = waiting_updates.note(session, lost, failures)
    warnings = sender_warnings.facts(session, _worth_a_warning(given_up, lost))
    return [*facts, *chain(*again.values()), *warnings]


def _is_anothers(row: RowMapping, message: Update) -> bool:
    """Return whether an order has another account than its update, or the other mode."""
    return bool(
        row["account_id"] != message.data.account_id or row["is_test"] != message.data.IS_TEST
    )


def _name(businesses: Businesses, account_id: UUID) -> str:
    business = businesses.get(account_id)
    return "" if business is None else business.company_name


def _content(message: Update) -> tuple[TrackingStatus, str, dict[str, str]]:
    """Return an update's status, note and tracking fields."""
    data = message.data
    if isinstance(data, OrderCancelled):
        return TrackingStatus.CANCELLED, data.reason, {}
    note = data.note if isinstance(data, OrderStatusChanged) else ""
    status = data.tracking_status or TrackingStatus.PENDING  # without one it is no update
    return status, note, tracking.fields_of(data)


def _progress(
    row: RowMapping,
    company_name: str,
    current: Position,
    event: OrderStatusChanged | OrderCancelled | OrderCreated | OrderUnaddressed,
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
        # Earlier versions did not store it.
        "order_number": row["order_number"] or event.order_number,
        "tracking_link": row["tracking_link"] or UNSET,
    }
    if status is TrackingStatus.CANCELLED:
        return OrderCancellationRecorded(**common, reason=note)
    common |= tracking.event_fields(tracking.values(parcel))
    return OrderStatusRecorded(**common, previous_status=current.status, note=note)


def _fact(
    cause: Received[Any], fact: Event, bulk: Accounts, businesses: Businesses
) -> Message | None:
    """Return the message of a fact; None for a test order whose business is unknown."""
    # The same id each time, also when the journal is replayed into an empty database, so no email
    # is sent twice. An order is recorded once, whichever message created it.
    about = cause.data.order_id if isinstance(fact, OrderRecorded) else cause.id
    message_id = follow_up_id(about, fact.TYPE)
    is_test = cause.data.IS_TEST
    if is_test:
        # The business becomes the recipient, so nothing later can mail the sender's customer.
        business = businesses.get(cause.data.account_id)
        if business is None:
            return None
        # A test order that was cleared and sent again is mailed again.
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
