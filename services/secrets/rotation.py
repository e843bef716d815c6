"""The life of a secret: `active` -> `retiring` -> `expired`; or `revoked` at once.

Everything that changes an account's secrets holds the account's advisory lock, so two changes at
once come one after the other; the unique index on the active one stands behind that.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared import webhook_keys
from shared.bus.events import Event, SecretIssued, SecretRevoked, SecretRotated
from shared.bus.message import message_for
from shared.config import settings
from shared.db.models import Account, KycApplication, WebhookSecret
from shared.ids import new_id
from shared.outbox import store

Cause = Literal["expired_use", "scheduled", "operator", "business"]


def lock(session: Session, account_id: UUID) -> None:
    """Wait until no other transaction changes this account's secrets."""
    session.execute(select(func.pg_advisory_xact_lock(_lock_key(account_id))))


def try_lock(session: Session, account_id: UUID) -> bool:
    """Like `lock`, but gives up at once when another transaction is at it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_lock_key(account_id)))))


def is_approved(session: Session, account_id: UUID) -> bool:
    """Whether the account's KYC is approved now."""
    return bool(
        session.scalar(
            select(
                select(KycApplication.id)
                .where(KycApplication.account_id == account_id)
                .where(KycApplication.status == "approved")
                .exists()
            )
        )
    )


def active(session: Session, account_id: UUID) -> WebhookSecret | None:
    """The account's active secret, also when its time is over but nobody has noticed yet."""
    return session.scalar(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id, WebhookSecret.state == "active")
        .execution_options(populate_existing=True)
    )


def newest(session: Session, account_id: UUID) -> WebhookSecret | None:
    """The active secret or, where there is none, the one that was issued last."""
    return session.scalar(
        select(WebhookSecret)
        .where(WebhookSecret.account_id == account_id)
        .order_by((WebhookSecret.state == "active").desc(), WebhookSecret.issued_at.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )


def has_ended(secret: WebhookSecret, now: datetime) -> bool:
    """Whether its time is over, marked or not. A revoked one did not end: it was ended."""
    return secret.state == "expired" or (secret.state == "active" and secret.expires_at <= now)


def issue(session: Session, account: Account) -> WebhookSecret:
    """A first secret, for an account that has no active one. The caller holds the lock."""
    secret = _make(session, account)
    _tell(
        session,
        SecretIssued(
            account_id=account.id,
            company_name=account.company_name,
            email=account.email,
            secret_id=secret.id,
            expires_at=secret.expires_at,
        ),
    )
    return secret


def rotate(
    session: Session, account: Account, cause: Cause, *, revoke_previous: bool = False
) -> WebhookSecret:
    """A new secret in the place of the active one. The caller holds the lock.

    Args:
        session: the transaction.
        account: whose.
        cause: what the business is told.
        revoke_previous: whether all earlier ones stop working at once, rather than at their own
            expiry.
    """
    previous = active(session, account.id)
    now = datetime.now(UTC)
    if revoke_previous:
        _revoke_live(session, account.id, now)
    if previous is None:
        return issue(session, account)
    if not revoke_previous:
        previous.state = "retiring" if previous.expires_at > now else "expired"
        previous.replaced_at = now
        session.flush()
    secret = _make(session, account)
    _tell(
        session,
        SecretRotated(
            account_id=account.id,
            company_name=account.company_name,
            email=account.email,
            secret_id=secret.id,
            expires_at=secret.expires_at,
            previous_secret_id=previous.id,
            previous_valid_until=now if revoke_previous else previous.expires_at,
            cause=cause,
        ),
    )
    return secret


def revoke(
    session: Session,
    account: Account,
    reason: str,
    *,
    secret_id: UUID | None = None,
    issued_before: datetime | None = None,
) -> None:
    """Make secrets stop working at once. The caller holds the lock.

    Args:
        session: the transaction.
        account: whose.
        reason: what the business is told.
        secret_id: only this one.
        issued_before: only those issued before this time.
    """
    revoked = _revoke_live(session, account.id, datetime.now(UTC), secret_id, issued_before)
    if revoked:
        _tell(
            session,
            SecretRevoked(
                account_id=account.id,
                company_name=account.company_name,
                email=account.email,
                secret_ids=tuple(revoked),
                reason=reason,
            ),
        )


def _revoke_live(
    session: Session,
    account_id: UUID,
    now: datetime,
    secret_id: UUID | None = None,
    issued_before: datetime | None = None,
) -> list[UUID]:
    change = (
        update(WebhookSecret)
        .where(WebhookSecret.account_id == account_id)
        .where(WebhookSecret.state.in_(("active", "retiring")))
        .values(state="revoked", revoked_at=now)
        .returning(WebhookSecret.id)
    )
    if secret_id is not None:
        change = change.where(WebhookSecret.id == secret_id)
    if issued_before is not None:
        change = change.where(WebhookSecret.issued_at <= issued_before)
    return list(session.scalars(change))


def _make(session: Session, account: Account) -> WebhookSecret:
    raw, secret_id, now = webhook_keys.generate(), new_id(), datetime.now(UTC)
    secret = WebhookSecret(
        id=secret_id,
        account_id=account.id,
        key_hash=webhook_keys.key_hash(webhook_keys.encode_key(raw).encode()),
        sealed=webhook_keys.seal(raw, secret_id),
        state="active",
        issued_at=now,
        expires_at=now + timedelta(days=settings().secret_lifetime_days),
    )
    session.add(secret)
    session.flush()
    return secret


def _tell(session: Session, fact: SecretIssued | SecretRotated | SecretRevoked) -> None:
    message: Event = fact
    store.add(
        session, [message_for(message, source="services.secrets", correlation_id=fact.account_id)]
    )


def _lock_key(account_id: UUID) -> int:
    """A signed 64-bit number for PostgreSQL's advisory locks, from the random end of the id."""
    return int.from_bytes(account_id.bytes[8:], signed=True)
