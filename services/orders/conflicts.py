"""Orders sent under a number or key that another order has: the first one stays, these are kept.

The history knows the id of each message that was recorded, for ever. The inbox is not enough for
that: it is pruned, and a message that is replayed from the journal passes it.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from services.orders import tracking
from shared import erased
from shared.bus.contract.events import OrderCreated, encode
from shared.bus.contract.message import Received
from shared.db import arrays

MAX_KEPT = 20  # of one order; of what comes after them the event id alone


def keep(
    session: Session, messages: Sequence[Received[OrderCreated]]
) -> list[Received[OrderCreated]]:
    """Keep those that say another thing than the order that was recorded under their id before.

    A copy of a message that was recorded itself is none, nor is the same order in another layout
    or with another time, and neither is another account's: its ids are derived from the account.
    Nor is one kept of an order whose customer was erased.

    Returns:
        Those that were not kept before.
    """
    orders: dict[UUID, list[Row[Any]]] = {}
    for row in session.execute(_FIRST, _ids(messages)):
        orders.setdefault(row.event_id, []).append(row)
    others = {m.id: m for m in messages if m.id in orders and _differs(m.data, orders[m.id])}
    if not others:
        return []
    kept = session.execute(
        _KEEP,
        _ids(others.values())
        | {
            "event": arrays.texts(encode(m.data).decode() for m in others.values()),
            "at": arrays.times(m.time for m in others.values()),
            "most": MAX_KEPT,
        },
    )
    new = set(kept.scalars())
    return [message for message in others.values() if message.id in new]


def _ids(messages: Collection[Received[OrderCreated]]) -> dict[str, Any]:
    return {
        "event_id": arrays.uuids(m.id for m in messages),
        "order_id": arrays.uuids(m.data.order_id for m in messages),
        "account_id": arrays.uuids(m.data.account_id for m in messages),
        "erased": erased.ADDRESS,
    }


def _differs(sent: OrderCreated, first: Sequence[Row[Any]]) -> bool:
    """Whether an order says another thing than the first one under its id.

    Args:
        sent: the order.
        first: the first one; once for each message of its history with the stamp it was created by.
    """
    order = first[0]
    customer = sent.customer_details
    said = (
        customer.name,
        customer.email,
        customer.phone,
        sent.item_summary,
        sent.address,
        sent.metadata or None,
    )
    if said != tuple(order)[1:7]:
        return True
    parcel = tracking.said_in(sent)
    return all(
        row.created_as not in (None, sent.tracking_status.value) or parcel != _created_with(row)
        for row in first
    )


def _created_with(row: Row[Any]) -> dict[str, str]:
    """What an order was created with of its parcel, as far as that is still known."""
    said: dict[str, str] = row.created_with or {}
    if said:
        return said
    # The history forgets it before the order does.
    by = row.tracking_said or {}
    created_by = [[str(row.id)], [str(row.created_by)]]
    known = row.tracking or {}
    return {name: known[name] for name in known if by.get(name, ())[-1:] in created_by}


def recorded(session: Session, ids: Sequence[UUID]) -> set[UUID]:
    """The messages among `ids` that the history has."""
    if not ids:
        return set()
    return set(session.execute(_RECORDED, {"ids": arrays.uuids(ids)}).scalars())


_GIVEN = """
    unnest(CAST(:event_id AS uuid[]), CAST(:order_id AS uuid[]), CAST(:account_id AS uuid[])
"""
_FIRST = text(f"""
    SELECT given.event_id, o.customer_name, o.customer_email, o.customer_phone, o.item_summary,
           o.address, o.metadata, o.id, o.tracking, o.tracking_said,
           h.tracking_status AS created_as, h.tracking AS created_with, h.event_id AS created_by
    FROM {_GIVEN}) AS given (event_id, order_id, account_id)
    JOIN orders o ON o.id = given.order_id AND o.account_id = given.account_id
         AND o.customer_email <> :erased
    LEFT JOIN order_status_history h ON h.order_id = o.id AND h.at = o.accepted_at
    -- Only what creates this very order has its id: it was placed by another word.
    WHERE given.event_id <> o.id
      AND NOT EXISTS (SELECT FROM order_status_history s WHERE s.event_id = given.event_id)
      AND NOT EXISTS (SELECT FROM order_conflicts c WHERE c.event_id = given.event_id)
""")  # noqa: S608 - our own text
_KEEP = text(f"""
    INSERT INTO order_conflicts (event_id, order_id, account_id, event, at)
    SELECT event_id, order_id, account_id,
           CASE WHEN number <= :most THEN CAST(event AS jsonb) END, at
    FROM (
        SELECT given.*, row_number() OVER (PARTITION BY given.order_id ORDER BY given.at)
               + (SELECT count(*) FROM (
                    SELECT FROM order_conflicts c WHERE c.order_id = given.order_id LIMIT :most
                  ) AS before)
               AS number
        FROM {_GIVEN}, CAST(:event AS text[]), CAST(:at AS timestamptz[]))
             AS given (event_id, order_id, account_id, event, at)
        -- Once more: whom it is about may have been erased meanwhile, or may be right now.
        JOIN (
            SELECT id FROM orders
            WHERE id = ANY(CAST(:order_id AS uuid[])) AND customer_email <> :erased
            ORDER BY id FOR SHARE
        ) AS o ON o.id = given.order_id
    ) AS other
    ON CONFLICT DO NOTHING
    RETURNING event_id
""")  # noqa: S608 - our own text
_RECORDED = text("""
    SELECT event_id FROM order_status_history WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")
