"""Orders sent under a number or key that another order has: the first one stays, these are kept.

The history knows the id of each message that was recorded, for ever. The inbox is not enough for
that: it is pruned, and a message that is replayed from the journal passes it.
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

MAX_KEPT = 20  # of one order; a sender that goes on like that has been told


def keep(
    session: Session, messages: Sequence[Received[OrderCreated]]
) -> list[Received[OrderCreated]]:
    """Keep those whose order id belongs to another message's order, recorded before.

    A copy of a message that was recorded itself is none, and neither is another account's: its ids
    are derived from the account. Nor is one kept of an order whose customer was erased.

    Returns:
        Those that were not kept before and say another thing than the order: a body that was only
        written anew is no news to its sender.
    """
    kept = session.execute(
        _KEEP,
        {
            "event_id": arrays.uuids(m.id for m in messages),
            "order_id": arrays.uuids(m.data.order_id for m in messages),
            "account_id": arrays.uuids(m.data.account_id for m in messages),
            "event": arrays.texts(encode(m.data).decode() for m in messages),
            "at": arrays.times(m.time for m in messages),
            "most": MAX_KEPT,
            "erased": erased.ADDRESS,
        },
    )
    new = set(kept.scalars())
    fresh = [message for message in messages if message.id in new]
    if not fresh:
        return []
    ids = arrays.uuids({message.data.order_id for message in fresh})
    orders = {row.id: row for row in session.execute(_SAID, {"ids": ids})}
    return [message for message in fresh if _differs(message.data, orders[message.data.order_id])]


def _differs(sent: OrderCreated, order: Row[Any]) -> bool:
    customer = sent.customer_details
    said = (
        customer.name,
        customer.email,
        customer.phone,
        sent.item_summary,
        sent.address,
        sent.metadata or None,
    )
    # Of its parcel the order may know more by now.
    known = order.tracking or {}
    parcel = tracking.said_in(sent).items()
    return said != tuple(order)[1:-1] or any(known.get(name) != value for name, value in parcel)


def recorded(session: Session, ids: Sequence[UUID]) -> set[UUID]:
    """The messages among `ids` that the history has."""
    if not ids:
        return set()
    return set(session.execute(_RECORDED, {"ids": arrays.uuids(ids)}).scalars())


_KEEP = text("""
    INSERT INTO order_conflicts (event_id, order_id, account_id, event, at)
    SELECT event_id, order_id, account_id, CAST(event AS jsonb), at
    FROM (
        SELECT given.*, row_number() OVER (PARTITION BY given.order_id ORDER BY given.at)
               + (SELECT count(*) FROM order_conflicts c WHERE c.order_id = given.order_id)
               AS number
        FROM unnest(CAST(:event_id AS uuid[]), CAST(:order_id AS uuid[]),
                    CAST(:account_id AS uuid[]), CAST(:event AS text[]),
                    CAST(:at AS timestamptz[]))
             AS given (event_id, order_id, account_id, event, at)
        JOIN orders o ON o.id = given.order_id AND o.account_id = given.account_id
             AND o.customer_email <> :erased
        WHERE NOT EXISTS (
            SELECT FROM order_status_history h WHERE h.event_id = given.event_id
        )
    ) AS other
    WHERE number <= :most
    ON CONFLICT DO NOTHING
    RETURNING event_id
""")
_SAID = text("""
    SELECT id, customer_name, customer_email, customer_phone, item_summary, address, metadata,
           tracking
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))
""")
_RECORDED = text("""
    SELECT event_id FROM order_status_history WHERE event_id = ANY(CAST(:ids AS uuid[]))
""")
