"""The life of a secret: `active` -> `retiring` -> `expired`; or `revoked` at once.

Everything that changes an account's secrets holds the account's advisory lock, so two changes at
once come one after the other; the unique index on the active one stands behind that. What makes one
also holds the approval it is made by. With the end of that approval the database revokes all, in
the same transaction (migration 0007), so a revocation has nothing left to do but to be told.

All times are the database's: hosts need not agree with each other.
"""

import math
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, true, update
from sqlalchemy.orm import Session

from services.secrets import SOURCE, public_keys
from shared.bus import outbox
from shared.bus.contract.events import SecretIssued, SecretRevoked, SecretRotated, of_account
from shared.config.loading import settings
from shared.db import revoked
from shared.db.models import Account, WebhookPublicKey, WebhookSecret
from shared.db.session import database_time
from shared.http.standing import not_approved
from shared.ids import new_id
from shared.security import webhook_keys

MAX_A_DAY = 20
"""How many secrets a business may have made in 24 hours."""

OURS = WebhookSecret.platform == ""
"""Those that we make: what a platform has made is given, and neither rotated nor shown."""

Cause = Literal["expired_use", "scheduled", "operator", "business"]


def ours(*, is_test: bool) -> ColumnElement[bool]:
    """Those that we make, for live orders or for test orders."""
    return and_(OURS, WebhookSecret.is_test == is_test)


def lock(session: Session, account_id: UUID) -> None:
    """Wait until no other transaction changes this account's secrets."""
    session.execute(select(func.pg_advisory_xact_lock(_lock_key(account_id))))


def try_lock(session: Session, account_id: UUID) -> bool:
    """Like `lock`, but gives up at once when another transaction is at it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_lock_key(account_id)))))


def hold_approval(session: Session, account_id: UUID) -> bool:
    """Whether the account's KYC is approved; then it stays so until the transaction ends."""
    return bool(session.scalar(select(func.hold_approval(account_id))))


def locked_account(session: Session, account_id: UUID) -> Account:
    """The account, whose secrets, public keys and approval nobody else changes now.

    Raises:
        ApiError: 403, its KYC is not approved.
    """
    lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None or not hold_approval(session, account_id):
        raise not_approved()
    return account


def active(session: Session, account_id: UUID, *, is_test: bool = False) -> WebhookSecret | None:
    """The account's active secret, also when its time is over but nobody has noticed yet."""
    return session.scalar(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, WebhookSecret.state == "active")
        .where(ours(is_test=is_test))
        .execution_options(populate_existing=True)
    )


def has_live(session: Session, account_id: UUID, secret_id: UUID | None = None) -> bool:
    """Whether there is a secret or public key to revoke: any of the account's, or the one named.

    An expired one is: what is used of those has a new one made.
    """
    if any(secret_id in (None, key.id) for key in public_keys.live(session, account_id)):
        return True
    live = select(WebhookSecret.id).where(
        WebhookSecret.account_id == account_id, WebhookSecret.state != "revoked"
    )
    if secret_id is not None:
        live = live.where(WebhookSecret.id == secret_id)
    return bool(session.scalar(select(live.exists())))


def knows(session: Session, account_id: UUID, secret_id: UUID) -> bool:
    """Whether an account has, or had, a secret or public key of an id."""
    return any(
        session.scalar(
            select(table.id).where(table.account_id == account_id, table.id == secret_id)
        )
        for table in (WebhookSecret, WebhookPublicKey)
    )


def newest(session: Session, account_id: UUID, *, is_test: bool = False) -> WebhookSecret | None:
    """The active secret or, where there is none, the one that was issued last."""
    return session.scalar(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, ours(is_test=is_test))
        .order_by((WebhookSecret.state == "active").desc(), WebhookSecret.issued_at.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def has_ended(secret: WebhookSecret, at: datetime) -> bool:
    """Whether its time is over, marked or not. A revoked one did not end: it was ended."""
    return secret.state == "expired" or (secret.state == "active" and secret.expires_at <= at)


def wait_for_next(
    session: Session, account_id: UUID, platform: str = "", *, is_test: bool = False
) -> int:
    """How many seconds an account must wait before it may have its secret replaced; 0 for none.

    Each stays in every worker's memory until 30 days after its end. Those of a platform count
    together, be they of test orders or not. The caller holds the lock.

    Args:
        session: the transaction.
        account_id: whose.
        platform: that has made it; empty for ours.
    """
    day = timedelta(days=1)
    oldest = session.scalar(
        select(WebhookSecret.issued_at)
        .where(WebhookSecret.account_id == account_id, WebhookSecret.platform == platform)
        .where(or_(WebhookSecret.platform != "", WebhookSecret.is_test == is_test))
        .where(WebhookSecret.issued_at > func.clock_timestamp() - day)
        .order_by(WebhookSecret.issued_at.desc())
        .offset(MAX_A_DAY - 1)
        .limit(1)
    )
    if oldest is None:
        return 0
    return max(1, math.ceil((oldest + day - database_time(session)).total_seconds()))


def issue(
    session: Session,
    account: Account,
    *,
    is_test: bool = False,
    revoked_ids: Sequence[UUID] = (),
) -> WebhookSecret:
    """A first secret, for an account that has no active one.

    The caller holds the lock, and the approval.

    Args:
        session: the transaction.
        account: whose.
        is_test: whether it is the test secret.
        revoked_ids: earlier ones that were revoked for it in this transaction.
    """
    secret = _make(session, account, is_test=is_test)
    _tell(
        session,
        SecretIssued(
            **of_account(account),
            secret_id=secret.id,
            expires_at=secret.expires_at,
            is_test=is_test,
            revoked_ids=tuple(revoked_ids),
        ),
    )
    return secret


def rotate(
    session: Session,
    account: Account,
    cause: Cause,
    *,
    revoke_previous: bool = False,
    is_test: bool = False,
) -> WebhookSecret:
    """A new secret in the place of the active one. The caller holds the lock, and the approval.

    Args:
        session: the transaction.
        account: whose.
        cause: what the business is told.
        revoke_previous: whether all earlier ones stop working at once, rather than at their own
            expiry.
        is_test: whether it is the test secret; either's life leaves the other's alone.
    """
    previous = active(session, account.id, is_test=is_test)
    at = database_time(session)
    which = ours(is_test=is_test)
    ended = _revoke_live(session, account.id, at, which) if revoke_previous else []
    if previous is None:
        return issue(session, account, is_test=is_test, revoked_ids=ended)
    if not revoke_previous:
        previous.state = "retiring" if previous.expires_at > at else "expired"
        previous.replaced_at = at
        session.flush()
    secret = _make(session, account, is_test=is_test)
    _tell(
        session,
        SecretRotated(
            **of_account(account),
            secret_id=secret.id,
            expires_at=secret.expires_at,
            previous_secret_id=previous.id,
            previous_valid_until=at if revoke_previous else previous.expires_at,
            cause=cause,
            revoked_ids=tuple(ended),
            is_test=is_test,
        ),
    )
    return secret


def revoke(
    session: Session,
    account: Account,
    reason: str,
    *,
    message_id: UUID,
    secret_id: UUID | None = None,
) -> None:
    """Make secrets, given ones too, and public keys stop working at once.

    The caller holds the lock.

    Args:
        session: the transaction.
        account: whose.
        reason: what the business is told.
        message_id: the fact's id.
        secret_id: only this one.
    """
    at = database_time(session)
    which = true() if secret_id is None else WebhookSecret.id == secret_id
    ended = _revoke_live(session, account.id, at, which)
    ended += public_keys.revoke(session, account.id, at, secret_id)
    if ended:
        _tell(session, _revoked(account, ended, reason), message_id)


def end(session: Session, account_id: UUID, ids: Collection[UUID]) -> None:
    """Make secrets and public keys stop working whose end was told; nobody is told again.

    The caller holds the lock.
    """
    at = database_time(session)
    _revoke_live(session, account_id, at, WebhookSecret.id.in_(ids))
    for one in ids:
        public_keys.revoke(session, account_id, at, one)


def end_test_mode(session: Session, account: Account) -> None:
    """Make every test secret of an account stop working at once. The caller holds the lock."""
    ended = _revoke_live(session, account.id, database_time(session), ours(is_test=True))
    if ended:
        _tell(session, _revoked(account, ended, "You ended test mode: these were test secrets."))


def tell_revoked_with(
    session: Session, account: Account, application_id: UUID, reason: str, message_id: UUID
) -> None:
    """Tell of the secrets that the database revoked with an approval.

    Args:
        session: the transaction.
        account: whose.
        application_id: whose approval was taken back.
        reason: what the business is told.
        message_id: the fact's id.
    """
    ended = revoked.with_approval(session, application_id)
    if ended:
        _tell(session, _revoked(account, ended, reason), message_id)


def tell_revoked(
    session: Session, account: Account, secret_ids: Sequence[UUID], reason: str
) -> None:
    """Tell of secrets that were revoked in this transaction.

    Args:
        session: the transaction.
        account: whose.
        secret_ids: which.
        reason: what the business is told.
    """
    _tell(session, _revoked(account, secret_ids, reason))


def _revoked(account: Account, secret_ids: Sequence[UUID], reason: str) -> SecretRevoked:
    return SecretRevoked(**of_account(account), secret_ids=tuple(secret_ids), reason=reason)


def _revoke_live(
    session: Session, account_id: UUID, at: datetime, which: ColumnElement[bool]
) -> list[UUID]:
    """Revoke secrets; returns those that were live.

    Expired ones too, of which nobody need be told: using one has a new one made.
    """
    change = (
        update(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, which)
        .values(state="revoked", revoked_at=at)
        .returning(WebhookSecret.id)
    )
    live = session.scalars(change.where(WebhookSecret.state.in_(("active", "retiring")))).all()
    session.execute(change.where(WebhookSecret.state == "expired"))
    return list(live)


def _make(session: Session, account: Account, *, is_test: bool) -> WebhookSecret:
    raw, secret_id, at = webhook_keys.generate(is_test=is_test), new_id(), database_time(session)
    secret = WebhookSecret(
        id=secret_id,
        account_id=account.id,
        key_hash=webhook_keys.key_hash(webhook_keys.encode_key(raw).encode()),
        sealed=webhook_keys.seal(raw, secret_id),
        is_test=is_test,
        state="active",
        issued_at=at,
        expires_at=at + timedelta(days=settings().secret_lifetime_days),
    )
    session.add(secret)
    session.flush()
    return secret


def _tell(
    session: Session,
    fact: SecretIssued | SecretRotated | SecretRevoked,
    message_id: UUID | None = None,
) -> None:
    outbox.tell(session, fact, fact.account_id, source=SOURCE, message_id=message_id)


def _lock_key(account_id: UUID) -> int:
    """A signed 64-bit number for PostgreSQL's advisory locks, from the random end of the id."""
    return int.from_bytes(account_id.bytes[8:], signed=True)
