"""What KYC facts and commands do to an account's secrets."""

from uuid import UUID

from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.bus.events import KycApproved, KycRevoked, SecretRevoke, SecretRotate
from shared.bus.message import Received
from shared.bus.retry import Permanent
from shared.db.models import Account


def on_approved(session: Session, received: Received[KycApproved]) -> None:
    """Issue a secret, unless there is one or the approval was taken back meanwhile."""
    account = _locked_account(session, received.data.account_id)
    approved = rotation.is_approved(session, account.id)
    if approved and rotation.active(session, account.id) is None:
        rotation.issue(session, account)


def on_revoked(session: Session, received: Received[KycRevoked]) -> None:
    """Revoke every secret; after another approval, only those issued before the revocation.

    The time alone would not do: one may be issued while the revocation is being committed.
    """
    account = _locked_account(session, received.data.account_id)
    rotation.revoke(
        session,
        account,
        received.data.reason or "Your KYC approval was revoked.",
        issued_before=received.time if rotation.is_approved(session, account.id) else None,
    )


def on_rotate(session: Session, received: Received[SecretRotate]) -> None:
    """Rotate. When the command names a secret, only if that one was not replaced or revoked."""
    command = received.data
    account = _locked_account(session, command.account_id)
    if not rotation.is_approved(session, account.id):
        raise Permanent("this account's KYC is not approved, so it gets no secret")
    if command.secret_id is not None:
        newest = rotation.newest(session, account.id)
        if newest is None or newest.id != command.secret_id or newest.state == "revoked":
            return
    rotation.rotate(session, account, command.cause, revoke_previous=command.revoke_previous)


def on_revoke(session: Session, received: Received[SecretRevoke]) -> None:
    """Revoke all secrets of an account, or the one named."""
    command = received.data
    account = _locked_account(session, command.account_id)
    rotation.revoke(session, account, command.reason, secret_id=command.secret_id)


def _locked_account(session: Session, account_id: UUID) -> Account:
    rotation.lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None:
        raise Permanent("no such account")
    return account
