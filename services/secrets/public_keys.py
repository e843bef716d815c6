"""The public keys that a business signs by: `active` until they are removed, or revoked.

Whoever changes an account's holds its lock (`rotation.lock`). With the end of the approval the
database revokes all, in the same transaction, as it does the secrets.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared.db.models import WebhookPublicKey

MOST = 3
"""How many a business may have: the one in use, its successor, and one for another program."""
MAX_A_DAY = 20
"""How many a business may add in 24 hours: each is told by email."""


def live(session: Session, account_id: UUID) -> Sequence[WebhookPublicKey]:
    """Those that may be signed by, in the order in which they were added."""
    return session.scalars(
        select(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id, WebhookPublicKey.state == "active")
        .order_by(WebhookPublicKey.added_at, WebhookPublicKey.id)
    ).all()


def added_lately(session: Session, account_id: UUID) -> int:
    """How many were added within a day."""
    since = func.clock_timestamp() - timedelta(days=1)
    query = select(func.count()).where(
        WebhookPublicKey.account_id == account_id, WebhookPublicKey.added_at > since
    )
    return int(session.scalar(query) or 0)


def revoke(
    session: Session, account_id: UUID, at: datetime, key_id: UUID | None = None
) -> list[UUID]:
    """Make an account's keys stop working at once, or the one named; returns which did."""
    change = (
        update(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id, WebhookPublicKey.state == "active")
        .values(state="revoked", revoked_at=at)
        .returning(WebhookPublicKey.id)
    )
    if key_id is not None:
        change = change.where(WebhookPublicKey.id == key_id)
    return list(session.scalars(change))
