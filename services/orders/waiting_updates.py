"""The rows of updates whose order is unknown, for their sender to see."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.orders.sender_warnings import NotTaken
from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract.events import (
    OrderCancelled,
    OrderCreated,
    OrderStatusChanged,
    OrderUnaddressed,
)
from shared.bus.contract.message import Received
from shared.db import arrays

Update = (
    Received[OrderStatusChanged]
    | Received[OrderCancelled]
    | Received[OrderCreated]
    | Received[OrderUnaddressed]
)


def note(
    session: Session, updates: Sequence[Update], failures: Mapping[UUID, Exception]
) -> list[NotTaken]:
    """Record which updates are retried; returns those that are given up now.

    Args:
        session: the transaction.
        updates: updates whose account has no such order.
        failures: by message id, the errors of those that are retried; the others are given up.
    """
    if not updates:
        return []
    given_up = [m for m in updates if m.id not in failures or m.attempt >= MAX_ATTEMPTS]
    ended = {m.id for m in given_up}
    session.execute(
        _NOTE,
        {
            "event_id": arrays.uuids(m.id for m in updates),
            "account_id": arrays.uuids(m.data.account_id for m in updates),
            "order_id": arrays.uuids(m.data.order_id for m in updates),
            "order_number": arrays.texts(m.data.order_number or None for m in updates),
            "given_up": arrays.booleans(m.id in ended for m in updates),
        },
    )
    return [NotTaken("update_given_up", m.data, m.id) for m in given_up]


def forget(session: Session, messages: Sequence[Received[Any]]) -> None:
    """Remove the rows of messages, whose order exists now."""
    if messages:
        session.execute(_FORGET, {"ids": arrays.uuids(m.id for m in messages)})


_FORGET = text("DELETE FROM waiting_updates WHERE event_id = ANY(CAST(:ids AS uuid[]))")
_NOTE = text("""
    INSERT INTO waiting_updates
        (event_id, account_id, order_id, order_number, since, given_up_at)
    SELECT DISTINCT ON (event_id) event_id, account_id, order_id, order_number,
           now(), CASE WHEN given_up THEN now() END
    FROM unnest(CAST(:event_id AS uuid[]), CAST(:account_id AS uuid[]),
                CAST(:order_id AS uuid[]), CAST(:order_number AS text[]),
                CAST(:given_up AS boolean[]))
         AS given (event_id, account_id, order_id, order_number, given_up)
    ORDER BY event_id
    ON CONFLICT (event_id) DO UPDATE SET given_up_at = excluded.given_up_at
""")
