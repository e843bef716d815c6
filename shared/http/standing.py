"""Checks of an account's state: a live session, not blocked, KYC approved.

An access token ends with its session, or at its expiry by the database's clock.
"""

from uuid import UUID

from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from shared.db.models import Account, AccountSession, KycApplication, WebhookPolicy
from shared.http.errors import ApiError, account_blocked
from shared.security.tokens import Token

KYC_REQUIRED = (403, "kyc_approval_required", "KYC approval required")


def require_session(session: Session, token: Token) -> None:
    """Raise if a token has expired, its session has ended, or the account is blocked.

    A token of a version without sessions is checked for expiry only.

    Raises:
        ApiError: 401; 403 if the account is blocked.
    """
    if is_blocked(session, token.account_id):
        raise account_blocked()
    now = func.clock_timestamp()
    live = select(literal(1)).where(literal(token.expires_at) > now)
    if token.session_id is not None:
        live = live.where(
            AccountSession.id == token.session_id,
            AccountSession.account_id == token.account_id,
            AccountSession.ended_at.is_(None),
            AccountSession.expires_at > now,
        )
    if session.scalar(live) is None:
        raise not_signed_in()


def is_blocked(session: Session, account_id: UUID) -> bool:
    """Return whether ops staff have blocked an account."""
    return (
        session.scalar(
            select(WebhookPolicy.blocked_at).where(WebhookPolicy.account_id == account_id)
        )
        is not None
    )


def held(session: Session, account_id: UUID) -> Account:
    """Return a signed-in account, locked so that it cannot be closed concurrently.

    Raises:
        ApiError: 401, if it was closed since the request was authenticated.
    """
    account = session.get(Account, account_id, with_for_update={"key_share": True})
    if account is None or account.closed_at is not None:
        raise ApiError(401, "not_signed_in", "This account no longer exists.")
    return account


def not_signed_in() -> ApiError:
    """The 401 of RFC 6750, 3."""
    return ApiError(
        401,
        "not_signed_in",
        "A valid access token is needed: sign in and send it as 'Authorization: Bearer <access>'.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def is_approved(session: Session, account_id: UUID) -> bool:
    """Whether the account's KYC is approved at the moment; nothing that stays so."""
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


def not_approved() -> ApiError:
    """Return the 403 for a business whose KYC is not approved."""
    return ApiError(
        *KYC_REQUIRED,
        message="You must complete and have your KYC approved to access webhook functionality.",
    )
