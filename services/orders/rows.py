"""The rows of orders and their history, written a batch at a time in a few statements.

One `INSERT ... SELECT unnest(...)` is many times faster than a statement for each order. Columns
that no order of a batch has are passed as an empty array, which `unnest` pads with NULL.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Row, RowMapping, text
from sqlalchemy.orm import Session

from services.orders import tracking
from services.orders.progress import Position
from services.orders.tracking import Tracking
from shared.bus.contract.events import OrderCreated, OrderPlaced, TrackingStatus
from shared.bus.contract.message import Received
from shared.db import arrays

Businesses = Mapping[UUID, Row[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of an order's history.

    Attributes:
        message: the message.
        status: its status.
        note: the sender's note; may be empty.
        counts: whether it changed the order.
        tracking: its tracking fields.
    """

    message: Received[Any]
    status: TrackingStatus
    note: str
    counts: bool
    tracking: Mapping[str, str]


def insert(session: Session, messages: Iterable[Received[OrderCreated]]) -> set[UUID]:
    """Insert orders; returns the ids of those that did not exist."""
    # By id, so that two recorders with the same orders do not deadlock.
    ordered = sorted(messages, key=lambda m: m.data.order_id)
    data = [m.data for m in ordered]
    positions = [initial_position(m) for m in ordered]
    parcels = [
        tracking.merged(d.order_id, {}, tracking.fields_of(d), position)
        for position, d in zip(positions, data, strict=True)
    ]
    existing = session.execute(
        _INSERT_ORDERS,
        {
            "id": arrays.uuids(d.order_id for d in data),
            "account_id": arrays.uuids(d.account_id for d in data),
            "customer_name": arrays.texts(d.customer_details.name for d in data),
            "customer_email": arrays.texts(d.customer_details.email for d in data),
            "customer_phone": arrays.texts(d.customer_details.phone for d in data),
            "item_summary": arrays.texts(d.item_summary for d in data),
            "address": arrays.texts(d.address for d in data),
            "tracking_status": arrays.texts(d.tracking_status.value for d in data),
            "at": arrays.times(m.time for m in ordered),
            "event_id": arrays.uuids(position.event_id for position in positions),
            "is_test": arrays.booleans(d.IS_TEST for d in data),
            "order_number": _sparse([d.order_number or None for d in data]),
            "metadata": _sparse([_json(d.metadata) for d in data]),
            "tracking": _sparse([_json(tracking.values(parcel)) for parcel in parcels]),
            "tracking_said": _sparse([_json(tracking.sources(parcel)) for parcel in parcels]),
        },
    )
    return {d.order_id for d in data}.difference(existing.scalars())


def initial_position(message: Received[OrderCreated]) -> Position:
    """Return the position of an order that a message creates."""
    event = message.data
    # A shop's state of the order is one of several by the same clock, in any order of arrival.
    is_state = isinstance(event, OrderPlaced) and event.has_moved
    return Position(event.tracking_status, message.time, message.id if is_state else event.order_id)


def add_history(session: Session, entries: Sequence[Entry]) -> set[UUID]:
    """Insert entries of the history; returns those of their orders that `leaving.check` refuses."""
    if not entries:
        return set()
    left = session.execute(
        _INSERT_HISTORY,
        {
            "event_id": arrays.uuids(entry.message.id for entry in entries),
            "order_id": arrays.uuids(entry.message.data.order_id for entry in entries),
            "tracking_status": arrays.texts(entry.status.value for entry in entries),
            "note": arrays.texts(entry.note for entry in entries),
            "at": arrays.times(entry.message.time for entry in entries),
            "applied": arrays.booleans(entry.counts for entry in entries),
            "tracking": _sparse([_json(_named(entry.tracking)) for entry in entries]),
        },
    )
    return set(left.scalars())


def apply(session: Session, events: Collection[UUID]) -> None:
    """Mark entries of the history as applied that were not."""
    if events:
        session.execute(_APPLY, {"ids": arrays.uuids(events)})


def lock(session: Session, ids: Iterable[UUID]) -> dict[UUID, RowMapping]:
    """Lock the existing orders among `ids`, by id, and return their rows."""
    found = session.execute(_LOCK_ORDERS, {"ids": arrays.uuids(ids)}).mappings()
    return {row["id"]: row for row in found}


def move(session: Session, positions: Mapping[UUID, Position]) -> None:
    """Update the status of orders."""
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


def track(session: Session, parcels: Mapping[UUID, Tracking]) -> None:
    """Update the tracking data of orders."""
    if parcels:
        session.execute(
            _UPDATE_TRACKING,
            {
                "id": arrays.uuids(parcels),
                "tracking": arrays.texts(_json(tracking.values(p)) for p in parcels.values()),
                "said": arrays.texts(_json(tracking.sources(p)) for p in parcels.values()),
            },
        )


def businesses(session: Session, accounts: set[UUID]) -> Businesses:
    """Return the names and proved email addresses of businesses."""
    rows = session.execute(_BUSINESSES, {"ids": arrays.uuids(accounts)})
    return {row.id: row for row in rows}


def _named(tracking: Mapping[str, str]) -> dict[str, str]:
    return {field: value for field, value in tracking.items() if value}


def _json(value: Any) -> str | None:
    """Return a value as JSON; None for an empty one."""
    return msgspec.json.encode(value).decode() if value else None


def _sparse(values: Sequence[str | None]) -> str:
    return arrays.texts(values) if any(values) else "{}"


# Returns the orders that existed, which are few.
_INSERT_ORDERS = text("""
    WITH created AS (
    INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone,
                        item_summary, address, tracking_status, status_at, status_event_id,
                        accepted_at, is_test, order_number, metadata, tracking, tracking_said)
    SELECT id, account_id, customer_name, customer_email, customer_phone,
           item_summary, address, tracking_status, at, event_id, at, is_test,
           order_number, CAST(metadata AS jsonb), CAST(tracking AS jsonb),
           CAST(tracking_said AS jsonb)
    FROM unnest(CAST(:id AS uuid[]), CAST(:account_id AS uuid[]), CAST(:customer_name AS text[]),
                CAST(:customer_email AS text[]), CAST(:customer_phone AS text[]),
                CAST(:item_summary AS text[]), CAST(:address AS text[]),
                CAST(:tracking_status AS text[]), CAST(:at AS timestamptz[]),
                CAST(:event_id AS uuid[]), CAST(:is_test AS boolean[]),
                CAST(:order_number AS text[]), CAST(:metadata AS text[]),
                CAST(:tracking AS text[]), CAST(:tracking_said AS text[]))
         AS given (id, account_id, customer_name, customer_email, customer_phone,
                   item_summary, address, tracking_status, at, event_id, is_test, order_number,
                   metadata, tracking, tracking_said)
    ON CONFLICT DO NOTHING
    RETURNING id
    )
    SELECT id FROM unnest(CAST(:id AS uuid[])) AS id WHERE id NOT IN (SELECT id FROM created)
""")
_INSERT_HISTORY = text("""
    WITH added AS (
    INSERT INTO order_status_history
        (event_id, order_id, tracking_status, note, at, applied, tracking)
    SELECT event_id, order_id, tracking_status, note, at, applied, CAST(tracking AS jsonb)
    FROM unnest(CAST(:event_id AS uuid[]), CAST(:order_id AS uuid[]),
                CAST(:tracking_status AS text[]), CAST(:note AS text[]),
                CAST(:at AS timestamptz[]), CAST(:applied AS boolean[]),
                CAST(:tracking AS text[]))
         AS given (event_id, order_id, tracking_status, note, at, applied, tracking)
    ON CONFLICT DO NOTHING
    )
    SELECT order_id FROM removed_orders WHERE order_id = ANY(CAST(:order_id AS uuid[]))
""")
_APPLY = text("""
    UPDATE order_status_history SET applied = true WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")
_LOCK_ORDERS = text("""
    SELECT id, account_id, accepted_at, customer_name, customer_email, item_summary,
           tracking_status, status_at, status_event_id, is_test, order_number, tracking,
           tracking_said, tracking_link
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR UPDATE
""")
_UPDATE_ORDERS = text("""
    UPDATE orders SET tracking_status = given.tracking_status, status_at = given.at,
                      status_event_id = given.event_id
    FROM unnest(CAST(:id AS uuid[]), CAST(:tracking_status AS text[]), CAST(:at AS timestamptz[]),
                CAST(:event_id AS uuid[])) AS given (id, tracking_status, at, event_id)
    WHERE orders.id = given.id
""")
_UPDATE_TRACKING = text("""
    UPDATE orders SET tracking = CAST(given.tracking AS jsonb),
                      tracking_said = CAST(given.said AS jsonb)
    FROM unnest(CAST(:id AS uuid[]), CAST(:tracking AS text[]), CAST(:said AS text[]))
         AS given (id, tracking, said)
    WHERE orders.id = given.id
""")
_BUSINESSES = text(
    "SELECT id, company_name, email FROM accounts WHERE id = ANY(CAST(:ids AS uuid[]))"
)
