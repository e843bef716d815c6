"""Rotation of the encryption key: seals secrets of older keys again under the first key.

Until then every listed key can open; an old key may leave the list once no secret needs it.
"""

from uuid import UUID

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.models import WebhookSecret
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError, sealer

AT_MOST = 500  # rows a run; the next run takes the rest

_FIRST = UUID(int=0)

log = structlog.get_logger()


class Resealing:
    """Reseals some secrets at each run, and starts over at the end.

    It continues where it stopped, so secrets that no key opens do not block the others.
    """

    def __init__(self) -> None:
        self._after = _FIRST

    def run(self, session: Session) -> int:
        """Reseal the next secrets; returns how many."""
        count, self._after = reseal(session, self._after)
        return count


def reseal(session: Session, after: UUID = _FIRST) -> tuple[int, UUID]:
    """Reseal secrets that are not sealed under the current key.

    Secrets that no listed key opens are skipped and logged: `SECRET_ENCRYPTION_KEYS` needs their
    key again.

    Args:
        session: the transaction.
        after: the id to begin after.

    Returns:
        The number of resealed secrets, and the id to continue after.
    """
    current = sealer().current_key_id
    outdated = session.scalars(
        select(WebhookSecret)
        .where(func.substr(WebhookSecret.sealed, 1, len(current)) != current)
        .where(WebhookSecret.id > after)
        .order_by(WebhookSecret.id)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    ).all()
    count, closed = 0, []
    for secret in outdated:
        try:
            raw = webhook_keys.unseal(secret.sealed, secret.id)
        except CannotOpenError:
            closed.append(str(secret.id))
            continue
        secret.sealed = webhook_keys.seal(raw, secret.id)
        count += 1
    if closed:
        log.error("secrets_cannot_be_opened", count=len(closed), first=closed[0])
    if count:
        log.info("secrets_sealed_again", count=count)
    return count, outdated[-1].id if len(outdated) == AT_MOST else _FIRST
