"""An account whose KYC is approved, held so while its secrets are changed."""

from uuid import UUID

from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.db.models import Account
from shared.http.errors import ApiError

KYC = (403, "kyc_approval_required", "KYC approval required")


def locked_account(session: Session, account_id: UUID) -> Account:
    """The account, whose secrets and whose approval nobody else changes now.

    Raises:
        ApiError: 403, its KYC is not approved.
    """
    rotation.lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None or not rotation.hold_approval(session, account_id):
        raise not_approved()
    return account


def not_approved() -> ApiError:
    """What a business is told that has no approval, or no more."""
    return ApiError(
        *KYC,
        message="You must complete and have your KYC approved to access webhook functionality.",
    )
