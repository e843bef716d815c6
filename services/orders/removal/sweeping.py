"""Removes the rows of removed orders, in pages."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.session import transaction

ROWS = 5_000
"""Rows that one transaction removes."""
PAGES = 40
"""Transactions of one run of the job."""


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
