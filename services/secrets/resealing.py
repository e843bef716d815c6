"""Rotating the encryption key: what an older key sealed is sealed again under the first one.

While it runs every listed key opens; once nothing is left under the old key, it may leave the list.
"""

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.models import WebhookSecret
from shared.security import webhook_keys
from shared.security.encryption import CannotOpenError, sealer

AT_MOST = 500  # rows a run; the next run takes the rest

log = structlog.get_logger()


def reseal(session: Session) -> int:
    """Seal again what is not sealed under the current key; returns how many secrets were.

    Those that no listed key opens are left as they are, and the log says so: their key is needed
    back in `SECRET_ENCRYPTION_KEYS`.
    """
    current = sealer().current_key_id
    outdated = session.scalars(
        select(WebhookSecret)
        .where(func.substr(WebhookSecret.sealed, 1, len(current)) != current)
        .order_by(WebhookSecret.id)
        .limit(AT_MOST)
        .with_for_update(skip_locked=True)
    )
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
    return count
