"""What a business signs by: its secrets and public keys, without the secret values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.models import WebhookPublicKey, WebhookSecret
from shared.security.public_keys import encode
from shared.security.webhook_keys import describe_other_keys

LIVE = ("active", "retiring")
AT_MOST = 100


@dataclass(frozen=True, slots=True)
class SecretLife:
    """A webhook secret's state and dates, without its value.

    With a `platform`, it was given to us by the business.
    """

    id: UUID
    is_test: bool
    state: str
    issued_at: datetime
    expires_at: datetime
    replaced_at: datetime | None
    revoked_at: datetime | None
    platform: str = ""
    shop: str = ""


@dataclass(frozen=True, slots=True)
class PublicKeyLife:
    """A present or former public key of a business."""

    id: UUID
    public_key: str
    state: str
    added_at: datetime
    revoked_at: datetime | None


def secrets(session: Session, account_id: UUID) -> tuple[Sequence[SecretLife], int]:
    """Return a business's secrets, newest first, and their total number.

    At most `AT_MOST` are returned: the valid ones, then the newest others.

    Args:
        session: may read secrets.
        account_id: the business's.
    """
    theirs = WebhookSecret.account_id == account_id
    # By column: services.ops may not read the sealed secret (see grants.py).
    rows = session.execute(
        select(
            WebhookSecret.id,
            WebhookSecret.is_test,
            WebhookSecret.state,
            WebhookSecret.issued_at,
            WebhookSecret.expires_at,
            WebhookSecret.replaced_at,
            WebhookSecret.revoked_at,
            WebhookSecret.platform,
            WebhookSecret.shop,
        )
        .where(theirs)
        .order_by(WebhookSecret.state.in_(LIVE).desc(), WebhookSecret.issued_at.desc())
        .limit(AT_MOST)
    ).all()
    total = session.scalar(select(func.count()).select_from(WebhookSecret).where(theirs)) or 0
    found = sorted(
        (SecretLife(*row) for row in rows), key=lambda secret: secret.issued_at, reverse=True
    )
    return tuple(found), total


def public_keys(session: Session, account_id: UUID) -> tuple[PublicKeyLife, ...]:
    """Return at most `AT_MOST` of a business's public keys: the valid ones, then the newest."""
    rows = session.scalars(
        select(WebhookPublicKey)
        .where(WebhookPublicKey.account_id == account_id)
        .order_by((WebhookPublicKey.state == "active").desc(), WebhookPublicKey.added_at.desc())
        .limit(AT_MOST)
    )
    return tuple(
        PublicKeyLife(row.id, encode(row.public_key), row.state, row.added_at, row.revoked_at)
        for row in rows
    )


def staying(secrets: Sequence[SecretLife], keys: Sequence[PublicKeyLife]) -> str:
    """Return what stays valid when a business's own secret is replaced, as a text; else empty.

    Args:
        secrets: the business's.
        keys: its public keys.
    """
    live = [secret for secret in secrets if secret.state in LIVE]
    return describe_other_keys(
        Counter(secret.platform for secret in live if secret.platform),
        public_keys=sum(key.state == "active" for key in keys),
        test=sum(secret.is_test for secret in live),
    )
