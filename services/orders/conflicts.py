"""Orders sent under a number or key that another order has: the first stays, these are kept beside.

The history has the id of every recorded message and never forgets one. The inbox is not enough: it
is pruned, and messages that are replayed from the journal bypass it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from services.orders import tracking
from shared import erased
from shared.bus.contract.events import OrderCreated, encode
from shared.bus.contract.message import Received
from shared.db import arrays

MAX_KEPT = 20
"""Conflicting orders kept of one order; of later ones only the event id is."""
MOST_OF_ITS_STAMP = 20
"""History entries of an order that are read to find what created it; a sender may make any number
with the same timestamp."""


def keep(
    session: Session, messages: Sequence[Received[OrderCreated]]
) -> list[Received[OrderCreated]]:
    """Keep the orders that differ from the one that was recorded under their id.

    Not kept are a copy of a recorded message, the same order in another layout or with another
    timestamp, an order of another account (ids are derived from the account), and an order whose
    customer was erased.

    Returns:
        The messages that were kept now.
    """
    ids = {"ids": arrays.uuids({m.data.order_id for m in messages}), "erased": erased.ADDRESS}
    orders = {row.id: row for row in session.execute(_ORDERS, ids)}
    if not orders:
        return []
    known = set(session.scalars(_KNOWN, {"ids": arrays.uuids(m.id for m in messages)}))
    created: dict[UUID, list[Row[Any]]] = {}
    for row in session.execute(_CREATED, ids | {"most": MOST_OF_ITS_STAMP}):
        created.setdefault(row.order_id, []).append(row)
    others = {
        m.id: m
        for m in messages
        if m.id not in known
        # Only what creates this very order has its id: it was placed by another message.
        and m.id != m.data.order_id
        and (order := orders.get(m.data.order_id)) is not None
        and order.account_id == m.data.account_id
        and _differs(m.data, order, created.get(order.id, ()))
    }
    if not others:
        return []
    kept = session.execute(
        _KEEP,
        {
            "event_id": arrays.uuids(others),
            "order_id": arrays.uuids(m.data.order_id for m in others.values()),
            "account_id": arrays.uuids(m.data.account_id for m in others.values()),
            "event": arrays.texts(encode(m.data).decode() for m in others.values()),
            "at": arrays.times(m.time for m in others.values()),
            "erased": erased.ADDRESS,
            "most": MAX_KEPT,
        },
    )
    new = set(kept.scalars())
    return [message for message in others.values() if message.id in new]


def _differs(sent: OrderCreated, order: Row[Any], created: Sequence[Row[Any]]) -> bool:
    """Return whether an order differs from the recorded one.

    Args:
        sent: the order.
        order: the row of the recorded one.
        created: the entries of its history with the timestamp of its creation.
    """
    customer = sent.customer_details
    values = (
        customer.name,
        customer.email,
        customer.phone,
        sent.item_summary,
        sent.address,
        sent.metadata or None,
    )
    if values != tuple(order)[:6]:
        return True
    parcel = tracking.fields_of(sent)
    if not created:  # The history forgets entries before the order is deleted.
        return parcel != _created_with(order, None)
    return all(
        entry.tracking_status != sent.tracking_status.value or parcel != _created_with(order, entry)
        for entry in created
    )


def _created_with(order: Row[Any], entry: Row[Any] | None) -> dict[str, str]:
    """Return the tracking fields an order was created with, as far as they are still known."""
    if entry is not None and entry.tracking:
        fields: dict[str, str] = entry.tracking
        return fields
    # The history forgets them before the order does.
    by = order.tracking_said or {}
    created_by = [[str(order.id)], [str(entry and entry.event_id)]]
    known = order.tracking or {}
    return {name: known[name] for name in known if by.get(name, ())[-1:] in created_by}


def recorded(session: Session, ids: Sequence[UUID]) -> set[UUID]:
    """Return the message ids among `ids` that the history has."""
    if not ids:
        return set()
    return set(session.execute(_RECORDED, {"ids": arrays.uuids(ids)}).scalars())


_ORDERS = text("""
    SELECT customer_name, customer_email, customer_phone, item_summary, address, metadata,
           id, account_id, tracking, tracking_said
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[])) AND customer_email <> :erased
""")
_RECORDED = text("""
    SELECT event_id FROM order_status_history WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")
_KNOWN = text("""
    SELECT event_id FROM order_status_history WHERE event_id = ANY(CAST(:ids AS uuid[]))
    UNION ALL
    SELECT event_id FROM order_conflicts WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")
# The creation's entry was written in the transaction that created the order, so it is among the
# first; entries from before migration 0025 have no `recorded_at`. An order's history is read once,
# however many messages conflict with it, and by the index that migration 0058 made for this order.
_CREATED = text("""
    SELECT entry.*
    FROM orders CROSS JOIN LATERAL (
        SELECT order_id, event_id, tracking_status, tracking FROM order_status_history
        WHERE order_id = orders.id AND at = accepted_at
        ORDER BY recorded_at NULLS FIRST LIMIT :most
    ) AS entry
    WHERE orders.id = ANY(CAST(:ids AS uuid[])) AND customer_email <> :erased
""")
_KEEP = text("""
    INSERT INTO order_conflicts (event_id, order_id, account_id, event, at)
    SELECT event_id, order_id, account_id,
           CASE WHEN number <= :most THEN CAST(event AS jsonb) END, at
    FROM (
        SELECT given.*, row_number() OVER (PARTITION BY given.order_id ORDER BY given.at)
               + (SELECT count(*) FROM (
                    SELECT FROM order_conflicts c WHERE c.order_id = given.order_id LIMIT :most
                  ) AS before)
               AS number
        FROM unnest(CAST(:event_id AS uuid[]), CAST(:order_id AS uuid[]),
                    CAST(:account_id AS uuid[]), CAST(:event AS text[]),
                    CAST(:at AS timestamptz[]))
             AS given (event_id, order_id, account_id, event, at)
        -- Again, and locked: the customer may have been erased since, or may be right now.
        JOIN (
            SELECT id FROM orders
            WHERE id = ANY(CAST(:order_id AS uuid[])) AND customer_email <> :erased
            ORDER BY id FOR SHARE
        ) AS o ON o.id = given.order_id
    ) AS other
    ON CONFLICT DO NOTHING
    RETURNING event_id
""")
