"""The public keys of businesses: `active` until they are removed or revoked.

Changes hold the account's lock (`rotation.lock`). When an approval ends, the database revokes all
in the same transaction, as it does secrets.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared.db.models import WebhookPublicKey

MOST = 3
"""Keys a business may have: the one in use, its successor, and one for another program."""
MAX_A_DAY = 20
"""Keys a business may add in 24 hours: each causes an email."""


def live(session: Session, account_id: UUID) -> Sequence[WebhookPublicKey]:
    """Return the active keys, in the order in which they were added."""
    return session.scalars(
        select(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id, WebhookPublicKey.state == "active")
        .order_by(WebhookPublicKey.added_at, WebhookPublicKey.id)
    ).all()


def added_lately(session: Session, account_id: UUID) -> int:
    """Return the number of keys added within 24 hours."""
    since = func.clock_timestamp() - timedelta(days=1)
    query = select(func.count()).where(
        WebhookPublicKey.account_id == account_id, WebhookPublicKey.added_at > since
    )
    return int(session.scalar(query) or 0)


def revoke(
    session: Session, account_id: UUID, at: datetime, key_id: UUID | None = None
) -> list[UUID]:
    """Revoke an account's active keys, or only `key_id`; returns the revoked ids."""
    change = (
        update(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id, WebhookPublicKey.state == "active")
        .values(state="revoked", revoked_at=at)
        .returning(WebhookPublicKey.id)
    )
    if key_id is not None:
        change = change.where(WebhookPublicKey.id == key_id)
    return list(session.scalars(change))
