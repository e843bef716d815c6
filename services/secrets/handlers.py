"""Handlers of KYC facts and of commands about an account's secrets."""

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
"""Facts that name revoked secrets or public keys."""


def on_approved(session: Session, received: Received[KycApproved]) -> None:
    """Issue a secret, unless there is one or the approval was revoked since."""
    account = _locked_account(session, received.data.account_id)
    approved = rotation.hold_approval(session, account.id)
    if approved and rotation.active(session, account.id) is None:
        rotation.issue(session, account)


def on_revoked(session: Session, received: Received[KycRevoked]) -> None:
    """Report the secrets that the database revoked with the approval.

    It did so in the decision's transaction, so this does not depend on the order of this fact and
    that of a later approval.
    """
    revoked = received.data
    rotation.add_revoked_with(
        session,
        _locked_account(session, revoked.account_id),
        revoked.application_id,
        revoked.reason,
        # The same id when the journal is replayed, so the business gets one email.
        follow_up_id(received.id, SecretRevoked.TYPE, revoked.application_id),
    )


def on_rotate(session: Session, received: Received[SecretRotate]) -> None:
    """Rotate. If the command names a secret, only if it was not replaced or revoked.

    Raises:
        Permanent: the account does not exist or its KYC is not approved.
    """
    command = received.data
    account = _locked_account(session, command.account_id)
    if not rotation.hold_approval(session, account.id):
        if command.secret_id is not None:
            return  # revoked with the approval since the command was sent
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
        Permanent: the account or the named secret or public key does not exist.
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
        # The same id when the journal is replayed, so the business gets one email.
        message_id=follow_up_id(received.id, SecretRevoked.TYPE, account.id),
    )


def on_ended(session: Session, received: Received[Ended]) -> None:
    """Revoke what a replayed fact says was revoked, in a database restored from before it.

    Raises:
        Permanent: the message is not replayed from the journal.
    """
    if received.replay != "again":
        raise Permanent("a fact is here as a copy from the journal alone")
    fact = received.data
    ids = (
        fact.secret_ids if isinstance(fact, SecretRevoked | SecretKeyRemoved) else fact.revoked_ids
    )
    rotation.lock(session, fact.account_id)
    # An account that the restored database does not have has nothing to revoke.
    rotation.end(session, fact.account_id, ids)


def _locked_account(session: Session, account_id: UUID) -> Account:
    rotation.lock(session, account_id)
    account = session.get(Account, account_id)
    if account is None:
        raise Permanent("no such account")
    return account
