"""Finds the webhook secrets and public keys that ended with a business's approval."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, cast, func, select, union_all
from sqlalchemy.orm import Session

from shared.db.models import WebhookPublicKey, WebhookSecret

_KINDS = (WebhookSecret, WebhookPublicKey)


def with_approval(session: Session, application_id: UUID) -> tuple[UUID, ...]:
    """Return the sorted ids of the credentials revoked with an application's approval."""
    return _ids(
        session, *(select(kind.id).where(kind.revoked_with == application_id) for kind in _KINDS)
    )


def by_this_transaction(session: Session, account_id: UUID) -> tuple[UUID, ...]:
    """Return the sorted ids of an account's credentials revoked in the current transaction.

    Secrets that had expired before are not included.
    """
    transaction_id = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
    queries = (
        select(kind.id)
        .where(kind.account_id == account_id, kind.revoked_with.is_not(None))
        .where(kind.changed_in == transaction_id)
        for kind in _KINDS
    )
    return _ids(session, *queries)


def kinds_of(session: Session, ids: Collection[UUID]) -> tuple[str, ...]:
    """Return the sorted kinds of credentials, as `SecretRevoked.kinds` has them.

    Args:
        session: the transaction.
        ids: of secrets and public keys.
    """
    columns = select(WebhookSecret.platform, WebhookSecret.is_test)
    secrets = session.execute(columns.where(WebhookSecret.id.in_(ids))).all()
    kinds = {platform or ("test" if is_test else "live") for platform, is_test in secrets}
    return tuple(sorted(kinds | ({"key"} if len(secrets) < len(ids) else set())))


def _ids(session: Session, *queries: Select[Any]) -> tuple[UUID, ...]:
    return tuple(sorted(session.scalars(union_all(*queries))))
