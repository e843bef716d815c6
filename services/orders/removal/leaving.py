"""The recorder's rule: an order is not recorded again while rows of its former self are left."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.errors import Retry
from shared.bus.contract.events import CREATED, OrderPlaced
from shared.bus.contract.message import Received
from shared.db import arrays

ONCE_MORE = "the order was removed, and its history is not yet"


class StillLeavingError(Retry):
    """An order was removed while a batch was about to record it again."""


def set_aside(
    session: Session, messages: Sequence[Received[Any]], failures: dict[UUID, Exception]
) -> list[Received[Any]]:
    """Have the messages retried that would create an order which is still leaving.

    Args:
        session: the transaction.
        messages: a batch.
        failures: receives the errors of those messages, by message id.

    Returns:
        The other messages.
    """
    creating = {
        m.id: m.data.order_id
        for m in messages
        if m.type in CREATED or isinstance(m.data, OrderPlaced)
    }
    if not creating:
        return list(messages)
    held = set(session.scalars(_LEAVING, {"ids": arrays.uuids(creating.values())}))
    if not held:
        return list(messages)
    failures |= {id_: Retry(ONCE_MORE) for id_, order in creating.items() if order in held}
    return [m for m in messages if m.id not in failures]


def check(left: Collection[UUID]) -> None:
    """Check that no order that was created now was removed since `set_aside`.

    Creating an order waits for a transaction that removes it; what that one wrote is seen by the
    next statement.

    Args:
        left: those of the created orders that have rows left; see `rows.add_history`.

    Raises:
        StillLeavingError: there are some; the batch is handled again, message by message.
    """
    if left:
        raise StillLeavingError(ONCE_MORE)


_LEAVING = text("""
    SELECT order_id FROM removed_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))
""")
