"""The use of an account's webhook secrets and public keys, as counted by the ingress."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import func, literal, select, union_all
from sqlalchemy.orm import Session

from shared.db.models import WebhookPublicKey, WebhookSecret, WebhookSecretUse

DAY = timedelta(hours=24)


class SecretUse(msgspec.Struct, frozen=True, kw_only=True):
    """The use of a secret.

    Attributes:
        last_used_at: the time of its latest accepted request; None if there was none.
        share_of_last_day: its share of the accepted requests of the last 24 hours, from 0 to 1.
    """

    last_used_at: datetime | None = None
    share_of_last_day: float = 0.0


UNUSED = SecretUse()


def of_account(
    session: Session, account_id: UUID, now: datetime, *, is_test: bool = False
) -> Mapping[UUID, SecretUse]:
    """Return the use of an account's secrets and public keys by id, without the unused.

    Args:
        session: of a role that may read `webhook_secrets` and `webhook_public_keys` (id,
            account_id) and `webhook_secret_use`.
        account_id: the account.
        now: the end of the day. Use is counted by the hour, so the day may begin an hour earlier.
        is_test: whether of test mode, whose requests are counted separately.
    """
    lately = WebhookSecretUse.hour > now - DAY - timedelta(hours=1)
    theirs = union_all(
        select(WebhookSecret.id).where(
            WebhookSecret.account_id == account_id, WebhookSecret.is_test == is_test
        ),
        select(WebhookPublicKey.id).where(
            WebhookPublicKey.account_id == account_id, literal(not is_test)
        ),
    )
    counted = session.execute(
        select(
            WebhookSecretUse.secret_id,
            func.max(WebhookSecretUse.last_used_at).label("last_used_at"),
            func.coalesce(func.sum(WebhookSecretUse.accepted).filter(lately), 0).label("accepted"),
        )
        .where(WebhookSecretUse.secret_id.in_(theirs))
        .group_by(WebhookSecretUse.secret_id)
    ).all()
    together = sum(int(row.accepted) for row in counted)
    return {
        row.secret_id: SecretUse(
            last_used_at=row.last_used_at,
            share_of_last_day=round(int(row.accepted) / together, 4) if together else 0.0,
        )
        for row in counted
    }
