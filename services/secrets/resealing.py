"""Rotating the encryption key: what an older key sealed is sealed again under the first one.

While it runs every listed key opens; once nothing is left under the old key, it may leave the list.
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
    """Goes through the secrets, some at each run, and begins again at the end.

    It goes on from where it was, so that those that no key opens stand before no others.
    """

    def __init__(self) -> None:
        self._after = _FIRST

    def run(self, session: Session) -> int:
        """Do the next ones; returns how many were sealed again."""
        count, self._after = reseal(session, self._after)
        return count


def reseal(session: Session, after: UUID = _FIRST) -> tuple[int, UUID]:
    """Seal again what is not sealed under the current key.

    Those that no listed key opens are left as they are, and the log says so: their key is needed
    back in `SECRET_ENCRYPTION_KEYS`.

    Args:
        session: the transaction.
        after: the id to begin behind.

    Returns:
        How many were, and where to go on.
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
