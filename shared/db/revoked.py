"""What a business signs by and that ended with its approval: secrets, and public keys."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, cast, func, select, union_all
from sqlalchemy.orm import Session

from shared.db.models import WebhookPublicKey, WebhookSecret

_KINDS = (WebhookSecret, WebhookPublicKey)


def with_approval(session: Session, application_id: UUID) -> tuple[UUID, ...]:
    """The ids of those that the database has revoked with an application's approval, in order."""
    return _ids(
        session, *(select(kind.id).where(kind.revoked_with == application_id) for kind in _KINDS)
    )


def by_this_transaction(session: Session, account_id: UUID) -> tuple[UUID, ...]:
    """The ids of an account's that the database has revoked in the session's transaction, in order.

    Without the secrets that had expired before.
    """

    this_one = cast(cast(func.pg_current_xact_id(), Text), BigInteger)
    theirs = (
        select(kind.id)
        .where(kind.account_id == account_id, kind.revoked_with.is_not(None))
        .where(kind.changed_in == this_one)
        for kind in _KINDS
    )
    return _ids(session, *theirs)


def _ids(session: Session, *queries: Select[Any]) -> tuple[UUID, ...]:
    return tuple(sorted(session.scalars(union_all(*queries))))
