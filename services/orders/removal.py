"""Orders that were removed and whose history is still there: the rest is removed in pages.

An order's history may be of any length, so it is not removed in the order's transaction. The order
goes first: no reader shows the history of an order that is not there. Until the rest has gone the
order is not recorded again, since it would have a history with holes.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from shared.bus.contract.errors import Retry
from shared.bus.contract.events import CREATED, OrderPlaced
from shared.bus.contract.message import Received
from shared.db import arrays
from shared.db.session import transaction

ROWS = 5_000
"""Rows that one transaction removes."""
PAGES = 40
"""Transactions of one run of the job."""
ONCE_MORE = "the order was removed, and its history is not yet"


class StillLeavingError(Retry):
    """An order was removed while a batch was about to record it again."""


def leaving(session: Session, ids: Iterable[UUID]) -> set[UUID]:
    """Return those orders among `ids` that were removed and have rows left."""
    return set(session.scalars(_LEAVING, {"ids": arrays.uuids(ids)}))


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
    if not creating or not (held := leaving(session, creating.values())):
        return list(messages)
    failures |= {id_: Retry(ONCE_MORE) for id_, order in creating.items() if order in held}
    return [m for m in messages if m.id not in failures]


def check(session: Session, created: Iterable[UUID]) -> None:
    """Check, after orders were created, that none of them was removed since `set_aside`.

    Creating an order waits for a transaction that removes it; what that one wrote is seen here.

    Raises:
        StillLeavingError: one was; the batch is handled again, message by message.
    """
    if leaving(session, created):
        raise StillLeavingError(ONCE_MORE)


def sweep(session: Session, account_id: UUID | None = None) -> int:
    """Remove up to `ROWS` rows of removed orders, without waiting for anybody's lock.

    Args:
        session: the transaction, which the caller ends soon.
        account_id: whose orders; None for all accounts'.

    Returns:
        How many rows were removed; 0 if there are none, or others hold them.
    """
    return int(session.scalar(select(func.sweep_removed_orders(account_id, ROWS))) or 0)


def sweep_all(_: Session) -> None:
    """Remove rows of removed orders, a page in each transaction; the next run takes the rest."""
    for _page in range(PAGES):
        with transaction() as session:
            if not sweep(session):
                return


_LEAVING = text("""
    SELECT order_id FROM removed_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))
""")
