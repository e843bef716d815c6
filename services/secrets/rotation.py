"""The life cycle of a secret: `active` -> `retiring` -> `expired`, or `revoked` immediately.

Every change of an account's secrets holds the account's advisory lock, so concurrent changes are
serialized; the unique index on active secrets backs that up. Creating one also locks the KYC
approval. When an approval ends, the database revokes all secrets in the same transaction (migration
0007), so the revocation only has to be reported.

All times are by the database's clock, since the clocks of hosts may differ.
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
from shared.db.session import database_time, time_by_both_clocks
from shared.http.standing import not_approved
from shared.ids import new_id
from shared.security import webhook_keys

MAX_A_DAY = 20
"""Secrets a business may have created in 24 hours."""

OURS = WebhookSecret.platform == ""
"""Secrets that we create. A platform's are given to us, and neither rotated nor shown."""

Cause = Literal["expired_use", "scheduled", "operator", "business"]
RevokedCause = Literal["", "ended_test_mode", "removed", "approval_revoked", "account_closed"]


def ours(*, is_test: bool) -> ColumnElement[bool]:
    """Return the condition for secrets that we create, for live or for test orders."""
    return and_(OURS, WebhookSecret.is_test == is_test)


def lock(session: Session, account_id: UUID) -> None:
    """Lock an account's secrets until the transaction ends; waits for another holder."""
    session.execute(select(func.pg_advisory_xact_lock(_lock_key(account_id))))


def try_lock(session: Session, account_id: UUID) -> bool:
    """Lock like `lock`, but return False immediately if another transaction holds the lock."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_lock_key(account_id)))))


def hold_approval(session: Session, account_id: UUID) -> bool:
    """Return whether the account's KYC is approved; locks it until the transaction ends."""
    return bool(session.scalar(select(func.hold_approval(account_id))))


def locked_account(session: Session, account_id: UUID) -> Account:
    """Return an account with its secrets, public keys and approval locked.

    Raises:
        ApiError: 403, its KYC is not approved.
    """
    lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None or not hold_approval(session, account_id):
        raise not_approved()
    return account


def active(session: Session, account_id: UUID, *, is_test: bool = False) -> WebhookSecret | None:
    """Return the account's active secret, even if it has expired without being marked yet."""
    return session.scalar(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, WebhookSecret.state == "active")
        .where(ours(is_test=is_test))
        .execution_options(populate_existing=True)
    )


def has_live(session: Session, account_id: UUID, secret_id: UUID | None = None) -> bool:
    """Return whether a secret or public key can be revoked: `secret_id`, or any of the account's.

    An expired one can, since its use would create a new one.
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
    """Return whether an account has or had a secret or public key with this id."""
    return any(
        session.scalar(
            select(table.id).where(table.account_id == account_id, table.id == secret_id)
        )
        for table in (WebhookSecret, WebhookPublicKey)
    )


def newest(session: Session, account_id: UUID, *, is_test: bool = False) -> WebhookSecret | None:
    """Return the active secret or, without one, the last issued."""
    return session.scalar(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, ours(is_test=is_test))
        .order_by((WebhookSecret.state == "active").desc(), WebhookSecret.issued_at.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def has_ended(secret: WebhookSecret, at: datetime) -> bool:
    """Return whether a secret has expired, marked or not; False for a revoked one."""
    return secret.state == "expired" or (secret.state == "active" and secret.expires_at <= at)


def wait_for_next(
    session: Session, account_id: UUID, platform: str = "", *, is_test: bool = False
) -> int:
    """Return the seconds an account must wait before it may create another secret; 0 for none.

    Limited, since each stays in every worker's memory until 30 days after its end. The caller holds
    the lock.

    Args:
        session: the transaction.
        account_id: the account.
        platform: the platform, whose live and test secrets count together; empty for ours.
        is_test: whether it is a test secret, for ours.
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
    """Create a first secret, for an account without an active one.

    The caller holds the locks of `locked_account`.

    Args:
        session: the transaction.
        account: the account.
        is_test: whether it is the test secret.
        revoked_ids: earlier secrets that were revoked for it in this transaction.
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
    """Replace the active secret. The caller holds the locks of `locked_account`.

    Args:
        session: the transaction.
        account: the account.
        cause: the reason, for the business's email.
        revoke_previous: whether all earlier secrets stop working now and not at their expiry.
        is_test: whether it is the test secret; live and test secrets are independent.
    """
    previous = active(session, account.id, is_test=is_test)
    at = database_time(session)
    which = ours(is_test=is_test)
    ended = _revoke_live(session, account.id, at, which) if revoke_previous else []
    if previous is None:
        return issue(session, account, is_test=is_test, revoked_ids=ended)
    if not revoke_previous:
        # An expired mark is not undone, so it needs both clocks; `expire_due` sets it later.
        over = previous.expires_at <= time_by_both_clocks(session)
        previous.state = "expired" if over else "retiring"
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
    """Revoke secrets, including platforms', and public keys. The caller holds the lock.

    Args:
        session: the transaction.
        account: the account.
        reason: an operator's reason, for the business's email.
        message_id: the fact's id.
        secret_id: the only one to revoke; None for all.
    """
    at = database_time(session)
    which = true() if secret_id is None else WebhookSecret.id == secret_id
    ended = _revoke_live(session, account.id, at, which)
    ended += public_keys.revoke(session, account.id, at, secret_id)
    if ended:
        _tell(session, _revoked(session, account, ended, reason), message_id)


def end(session: Session, account_id: UUID, ids: Collection[UUID]) -> None:
    """Revoke secrets and public keys without another fact. The caller holds the lock."""
    at = database_time(session)
    _revoke_live(session, account_id, at, WebhookSecret.id.in_(ids))
    for one in ids:
        public_keys.revoke(session, account_id, at, one)


def end_test_mode(session: Session, account: Account) -> None:
    """Revoke every test secret of an account. The caller holds the lock."""
    ended = _revoke_live(session, account.id, database_time(session), ours(is_test=True))
    if ended:
        reason = "You ended test mode: these were test secrets."
        add_revoked(session, account, ended, reason, "ended_test_mode")


def add_revoked_with(
    session: Session, account: Account, application_id: UUID, reason: str, message_id: UUID
) -> None:
    """Report the secrets that the database revoked with an approval.

    Args:
        session: the transaction.
        account: the account.
        application_id: the application whose approval was revoked.
        reason: an operator's reason; may be empty.
        message_id: the fact's id.
    """
    ended = revoked.with_approval(session, application_id)
    if not ended:
        return
    if reason:
        fact = _revoked(session, account, ended, reason)
    else:
        why = "Your KYC approval was revoked."
        fact = _revoked(session, account, ended, why, "approval_revoked")
    _tell(session, fact, message_id)


def add_revoked(
    session: Session,
    account: Account,
    secret_ids: Sequence[UUID],
    reason: str,
    cause: RevokedCause,
) -> None:
    """Report secrets that were revoked in this transaction.

    Args:
        session: the transaction.
        account: the account.
        secret_ids: the secrets.
        reason: the cause as a sentence in English.
        cause: the cause, by which emails are translated.
    """
    _tell(session, _revoked(session, account, secret_ids, reason, cause))


def _revoked(
    session: Session,
    account: Account,
    ids: Sequence[UUID],
    reason: str,
    cause: RevokedCause = "",
) -> SecretRevoked:
    return SecretRevoked(
        **of_account(account),
        secret_ids=tuple(ids),
        reason=reason,
        kinds=revoked.kinds_of(session, ids),
        cause=cause,
    )


def _revoke_live(
    session: Session, account_id: UUID, at: datetime, which: ColumnElement[bool]
) -> list[UUID]:
    """Revoke secrets; returns those that were active or retiring.

    Expired ones are revoked without being reported: their use would create a new one.
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
    outbox.add_fact(session, fact, fact.account_id, source=SOURCE, message_id=message_id)


def _lock_key(account_id: UUID) -> int:
    """Return a signed 64-bit key for PostgreSQL's advisory locks, from the id's random end."""
    return int.from_bytes(account_id.bytes[8:], signed=True)
