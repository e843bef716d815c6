"""What KYC facts and commands do to an account's secrets."""

from uuid import UUID

from sqlalchemy.orm import Session

from services.secrets import rotation
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import (
    KycApproved,
    KycRevoked,
    SecretGiven,
    SecretIssued,
    SecretKeyRemoved,
    SecretRevoke,
    SecretRevoked,
    SecretRotate,
    SecretRotated,
)
from shared.bus.contract.message import Received
from shared.db.models import Account, WebhookSecret
from shared.ids import follow_up_id

Ended = SecretRevoked | SecretRotated | SecretIssued | SecretGiven | SecretKeyRemoved
"""What says which secrets or public keys stopped working at once."""


def on_approved(session: Session, received: Received[KycApproved]) -> None:
    """Issue a secret, unless there is one or the approval was taken back meanwhile."""
    account = _locked_account(session, received.data.account_id)
    approved = rotation.hold_approval(session, account.id)
    if approved and rotation.active(session, account.id) is None:
        rotation.issue(session, account)


def on_revoked(session: Session, received: Received[KycRevoked]) -> None:
    """Tell of the secrets that the database revoked with the approval.

    It did that in the transaction of the decision, so nothing here depends on what comes first:
    this fact, or that of another approval since.
    """
    revoked = received.data
    rotation.tell_revoked_with(
        session,
        _locked_account(session, revoked.account_id),
        revoked.application_id,
        revoked.reason or "Your KYC approval was revoked.",
        # The same when the journal is replayed: the business is not told twice.
        follow_up_id(received.id, SecretRevoked.TYPE, revoked.application_id),
    )


def on_rotate(session: Session, received: Received[SecretRotate]) -> None:
    """Rotate. When the command names a secret, only if that one was not replaced or revoked."""
    command = received.data
    account = _locked_account(session, command.account_id)
    if not rotation.hold_approval(session, account.id):
        if command.secret_id is not None:
            return  # revoked with the approval, whatever the sender of the command saw
        raise Permanent("this account's KYC is not approved, so it gets no secret")
    is_test = False
    if command.secret_id is not None:
        named = session.get(WebhookSecret, command.secret_id)
        is_test = named is not None and named.is_test
        newest = rotation.newest(session, account.id, is_test=is_test)
        if newest is None or newest.id != command.secret_id or newest.state == "revoked":
            return
    received.take_effect_once()
    rotation.rotate(
        session,
        account,
        command.cause,
        revoke_previous=command.revoke_previous,
        is_test=is_test,
    )


def on_revoke(session: Session, received: Received[SecretRevoke]) -> None:
    """Revoke all secrets of an account, or the one named.

    Raises:
        Permanent: it has none, and no public key, of the name.
    """
    command = received.data
    account = _locked_account(session, command.account_id)
    if command.secret_id and not rotation.knows(session, account.id, command.secret_id):
        raise Permanent(f"this account has no secret or public key {command.secret_id}")
    if rotation.has_live(session, account.id, command.secret_id):
        received.take_effect_once()
    rotation.revoke(
        session,
        account,
        command.reason,
        secret_id=command.secret_id,
        # The same when the journal is replayed: the business is not told twice.
        message_id=follow_up_id(received.id, SecretRevoked.TYPE, account.id),
    )


def on_ended(session: Session, received: Received[Ended]) -> None:
    """End what a fact of the journal says was ended, in a database from before it.

    Raises:
        Permanent: it is no copy of the journal's, and nothing else has business here.
    """
    if received.replay != "again":
        raise Permanent("a fact is here as a copy from the journal alone")
    fact = received.data
    ids = (
        fact.secret_ids if isinstance(fact, SecretRevoked | SecretKeyRemoved) else fact.revoked_ids
    )
    rotation.lock(session, fact.account_id)
    # Of a business that the database does not know there is nothing to end.
    rotation.end(session, fact.account_id, ids)


def _locked_account(session: Session, account_id: UUID) -> Account:
    rotation.lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None:
        raise Permanent("no such account")
    return account
