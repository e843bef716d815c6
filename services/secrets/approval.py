"""The account that a route changes what is signed by for, and its approval held meanwhile."""

from uuid import UUID

from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.db.models import Account
from shared.http.standing import not_approved


def locked_account(session: Session, account_id: UUID) -> Account:
    """The account, whose secrets, public keys and approval nobody else changes now.

    Raises:
        ApiError: 403, its KYC is not approved.
    """
    rotation.lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None or not rotation.hold_approval(session, account_id):
        raise not_approved()
    return account
