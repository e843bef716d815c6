"""Recording what senders said, a batch at a time, in a handful of statements whatever its size.

One `INSERT ... SELECT unnest(...)` is many times faster than a statement an order.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import Row, RowMapping, text
from sqlalchemy.orm import Session

from services.orders import conflicts, sender_warnings, waiting_updates
from services.orders.lanes import Lanes
from services.orders.progress import Position, is_news, moves
from services.orders.sender_warnings import NotTaken
from services.orders.unknown import Unknown
from shared import erased
from shared.bus import outbox
from shared.bus.consume.batch import Failures
from shared.bus.contract import topology
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    Event,
    OrderCancellationRecorded,
    OrderCancelled,
    OrderCreated,
    OrderRecorded,
    OrderStatusChanged,
    OrderStatusRecorded,
    TrackingStatus,
    in_test,
)
from shared.bus.contract.message import Message, Received, message_for
from shared.db import arrays
from shared.ids import follow_up_id

SOURCE = "services.orders"
DERIVED = 5  # the version of a UUID (RFC 9562) that an idempotent request's message has
Update = Received[OrderStatusChanged] | Received[OrderCancelled]
Accounts = frozenset[UUID]
Businesses = Mapping[UUID, Row[Any]]


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
        Those updates.
    """
    created = [m for m in messages if isinstance(m.data, OrderCreated)]
    updates = [m for m in messages if isinstance(m.data, OrderStatusChanged | OrderCancelled)]
    live = (m.data.account_id for m in (*created, *updates) if not m.data.IS_TEST)
    bulk = lanes.beyond_their_share(live)
    facts = _create(session, created, bulk)
    failures: dict[UUID, Exception] = {}
    if updates:
        facts += _update(session, updates, failures, bulk, unknown)
    outbox.add(session, facts)
    return failures


def _create(
    session: Session, messages: Sequence[Received[OrderCreated]], bulk: Accounts
) -> list[Message]:
    first = {m.data.order_id: m for m in reversed(messages)}
    if not first:
        return []
    created = session.execute(_INSERT_ORDERS, _columns(first.values())).scalars().all()
    recorded = [first[id_] for id_ in created]
    _add_history(session, [(m, m.data.tracking_status, "", True) for m in recorded])
    not_taken: list[NotTaken] = []
    if len(recorded) < len(messages):
        done = {m.id for m in recorded}
        not_taken = [
            NotTaken("key_reused", m.data.account_id, m.data.order_id, m.id)
            for m in conflicts.keep(session, [m for m in messages if m.id not in done])
            if not m.data.IS_TEST
        ]
    businesses = _businesses(session, {m.data.account_id for m in recorded})
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
            ),
            bulk,
            businesses,
        )
        for m in recorded
    )
    return [*filter(None, facts), *sender_warnings.facts(session, not_taken)]


def _update(
    session: Session,
    updates: Sequence[Update],
    failures: dict[UUID, Exception],
    bulk: Accounts,
    unknown: Unknown,
) -> list[Message]:
    ids = arrays.uuids({m.data.order_id for m in updates})
    rows = {row["id"]: row for row in session.execute(_LOCK_ORDERS, {"ids": ids}).mappings()}
    businesses = _businesses(session, {row["account_id"] for row in rows.values()})
    positions = {
        id_: Position(
            TrackingStatus(row["tracking_status"]), row["status_at"], row["status_event_id"]
        )
        for id_, row in rows.items()
    }
    known = conflicts.recorded(session, [m.id for m in updates if m.id.version == DERIVED])
    moved: set[UUID] = set()
    history: list[tuple[Update, TrackingStatus, str, bool]] = []
    facts: list[Message] = []
    lost: list[Update] = []
    passed_over: dict[UUID, Exception] = {}
    for message in sorted(updates, key=lambda m: (m.time, m.id)):
        order_id = message.data.order_id
        row = rows.get(order_id)
        if row is None or _is_anothers(row, message):
            lost.append(message)
            if message.data.IS_TEST:
                # It waits on no ladder, where it would stand among those that matter.
                passed_over[message.id] = Permanent(f"there is no test order {order_id}")
            else:
                failures[message.id] = unknown.failure(message)
            continue
        if message.id in known:
            continue
        status, note = _said(message)
        if row["customer_email"] == erased.ADDRESS:
            note = erased.EMPTY  # it may be about the person, who is told nothing any more
        current, update = positions[order_id], Position(status, message.time, message.id)
        counts = moves(order_id, current, update)
        history.append((message, status, note, counts))
        if not counts:
            continue
        positions[order_id] = update
        moved.add(order_id)
        if is_news(current, update, note):
            name = _name(businesses, row["account_id"])
            fact = _progress(row, name, current, update, note)
            facts += filter(None, [_fact(message, fact, bulk, businesses)])
    _add_history(session, history)
    _move(session, {order_id: positions[order_id] for order_id in moved})
    given_up = waiting_updates.note(session, lost, failures | passed_over, unknown)
    told = [one for one in given_up if one.event_id not in passed_over]
    return facts + sender_warnings.facts(session, told)


def _is_anothers(row: RowMapping, message: Update) -> bool:
    """Whether an order is another account's than its update's, or of the other mode."""
    return bool(
        row["account_id"] != message.data.account_id or row["is_test"] != message.data.IS_TEST
    )


def _said(message: Update) -> tuple[TrackingStatus, str]:
    data = message.data
    if isinstance(data, OrderCancelled):
        return TrackingStatus.CANCELLED, data.reason
    return data.tracking_status, data.note


def _progress(
    row: RowMapping, company_name: str, current: Position, update: Position, note: str
) -> Event:
    common: dict[str, Any] = {
        "order_id": row["id"],
        "account_id": row["account_id"],
        "company_name": company_name,
        "customer_name": row["customer_name"],
        "customer_email": row["customer_email"],
        "item_summary": row["item_summary"],
        "tracking_status": update.status,
    }
    if update.status is TrackingStatus.CANCELLED:
        return OrderCancellationRecorded(**common, reason=note)
    return OrderStatusRecorded(**common, previous_status=current.status, note=note)


def _fact(
    cause: Received[Any], fact: Event, bulk: Accounts, businesses: Businesses
) -> Message | None:
    """The fact that is told; None of a test order whose business is not known."""
    # The same id whenever it is recorded, also after the tables were lost and the journal was
    # replayed: nobody is told twice. An order is recorded once, whichever message brought it.
    told = cause.data.order_id if isinstance(fact, OrderRecorded) else cause.id
    is_test = cause.data.IS_TEST
    if is_test:
        # Whom the sender named is nowhere in it, so nothing further on can mail that person.
        business = businesses.get(cause.data.account_id)
        if business is None:
            return None
        fact = in_test(fact, customer_email=business.email)
    message = message_for(
        fact,
        source=SOURCE,
        correlation_id=cause.data.order_id,
        message_id=follow_up_id(told, fact.TYPE),
        time=datetime.now(UTC),
        traceparent=cause.traceparent,
    )
    if is_test or cause.data.account_id in bulk:
        return replace(message, routing_key=topology.BULK + message.routing_key)
    return message


def _columns(messages: Iterable[Received[OrderCreated]]) -> dict[str, str]:
    # In the order of the ids, so that two recorders with the same orders do not deadlock.
    ordered = sorted(messages, key=lambda m: m.data.order_id)
    return {
        "id": arrays.uuids(m.data.order_id for m in ordered),
        "account_id": arrays.uuids(m.data.account_id for m in ordered),
        "customer_name": arrays.texts(m.data.customer_details.name for m in ordered),
        "customer_email": arrays.texts(m.data.customer_details.email for m in ordered),
        "customer_phone": arrays.texts(m.data.customer_details.phone for m in ordered),
        "item_summary": arrays.texts(m.data.item_summary for m in ordered),
        "address": arrays.texts(m.data.address for m in ordered),
        "tracking_status": arrays.texts(m.data.tracking_status.value for m in ordered),
        "at": arrays.times(m.time for m in ordered),
        "is_test": arrays.booleans(m.data.IS_TEST for m in ordered),
    }


def _add_history(
    session: Session, said: Sequence[tuple[Received[Any], TrackingStatus, str, bool]]
) -> None:
    if said:
        session.execute(
            _INSERT_HISTORY,
            {
                "event_id": arrays.uuids(message.id for message, _, _, _ in said),
                "order_id": arrays.uuids(message.data.order_id for message, _, _, _ in said),
                "tracking_status": arrays.texts(status.value for _, status, _, _ in said),
                "note": arrays.texts(note for _, _, note, _ in said),
                "at": arrays.times(message.time for message, _, _, _ in said),
                "applied": arrays.booleans(applied for _, _, _, applied in said),
            },
        )


def _move(session: Session, positions: dict[UUID, Position]) -> None:
    if positions:
        session.execute(
            _UPDATE_ORDERS,
            {
                "id": arrays.uuids(positions),
                "tracking_status": arrays.texts(p.status.value for p in positions.values()),
                "at": arrays.times(p.at for p in positions.values()),
                "event_id": arrays.uuids(p.event_id for p in positions.values()),
            },
        )


def _businesses(session: Session, accounts: set[UUID]) -> Businesses:
    rows = session.execute(_BUSINESSES, {"ids": arrays.uuids(accounts)})
    return {row.id: row for row in rows}


def _name(businesses: Businesses, account_id: UUID) -> str:
    business = businesses.get(account_id)
    return "" if business is None else business.company_name


_INSERT_ORDERS = text("""
    INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone,
                        item_summary, address, tracking_status, status_at, status_event_id,
                        accepted_at, is_test)
    SELECT id, account_id, customer_name, customer_email, customer_phone,
           item_summary, address, tracking_status, at, id, at, is_test
    FROM unnest(CAST(:id AS uuid[]), CAST(:account_id AS uuid[]), CAST(:customer_name AS text[]),
                CAST(:customer_email AS text[]), CAST(:customer_phone AS text[]),
                CAST(:item_summary AS text[]), CAST(:address AS text[]),
                CAST(:tracking_status AS text[]), CAST(:at AS timestamptz[]),
                CAST(:is_test AS boolean[]))
         AS given (id, account_id, customer_name, customer_email, customer_phone,
                   item_summary, address, tracking_status, at, is_test)
    ON CONFLICT DO NOTHING
    RETURNING id
""")
_INSERT_HISTORY = text("""
    INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied)
    SELECT * FROM unnest(CAST(:event_id AS uuid[]), CAST(:order_id AS uuid[]),
                         CAST(:tracking_status AS text[]), CAST(:note AS text[]),
                         CAST(:at AS timestamptz[]), CAST(:applied AS boolean[]))
    ON CONFLICT DO NOTHING
""")
_LOCK_ORDERS = text("""
    SELECT id, account_id, customer_name, customer_email, item_summary, tracking_status,
           status_at, status_event_id, is_test
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
""")
_UPDATE_ORDERS = text("""
    UPDATE orders SET tracking_status = given.tracking_status, status_at = given.at,
                      status_event_id = given.event_id
    FROM unnest(CAST(:id AS uuid[]), CAST(:tracking_status AS text[]), CAST(:at AS timestamptz[]),
                CAST(:event_id AS uuid[])) AS given (id, tracking_status, at, event_id)
    WHERE orders.id = given.id
""")
_BUSINESSES = text(
    "SELECT id, company_name, email FROM accounts WHERE id = ANY(CAST(:ids AS uuid[]))"
)
