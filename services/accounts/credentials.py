"""Changes of an account by its owner: password, email address, closing.

A signed-in owner gives the password again; an owner who lost it proves the email address by a code.
Each change ends the sessions that a thief might have; the address before the change is notified.
"""

from uuid import UUID

from sqlalchemy import Uuid, delete, literal, select, update
from sqlalchemy.orm import Session, undefer

from services.accounts import SOURCE, codes, guesses, registration, sessions, shown
from services.accounts.codes import Check
from services.accounts.registration import OTP_ERRORS
from shared.bus import outbox
from shared.bus.contract.events import AccountChanged, SecretRevoked, of_account
from shared.db import revoked
from shared.db.models import Account, EmailSender, KnownNetwork, PendingProof, WebhookPolicy
from shared.db.session import database_time
from shared.http.errors import ApiError, too_many_requests
from shared.security import passwords
from shared.security.networks import network_of


def notify(
    session: Session,
    account: Account,
    what: str,
    address: str,
    email: str = "",
    *,
    value: str = "",
) -> None:
    """Publish a change of an account, which its owner is mailed.

    Args:
        session: the transaction.
        account: the account.
        what: the change, as in `AccountChanged`.
        address: the client's IP address.
        email: the recipient; empty for the account's address.
        value: the new value, if the email is to show it.
    """
    fact = AccountChanged(
        **of_account(account, email),
        what=what,  # type: ignore[arg-type]
        address=address,
        value=value,
    )
    outbox.add_fact(session, fact, account.id, source=SOURCE)


def send_reset_code(
    session: Session, email: str, address: str, device_token: str = ""
) -> ApiError | None:
    """Mail a code for a new password if the account exists; the answer is the same if it does not.

    Args:
        session: the transaction.
        email: the email address.
        address: the client's IP address.
        device_token: from an earlier sign-in; empty if there was none.

    Returns:
        None, or 429 if the address has had the emails of the day.
    """
    email, network = email.lower(), network_of(address)
    is_known = guesses.is_known(session, email, device_token)
    asked = guesses.ask_for_mail(session, "password_reset", email, network, is_known=is_known)
    if asked.wait:
        return too_many_requests(asked.wait)
    registration.hold(session, email)
    account = registration.account_of(session, email)
    if not asked.is_on_its_way:
        send_code(session, account, "password_reset", email, network, is_for_nobody=account is None)
    return None


def reset_password(
    session: Session, email: str, otp: str, password: str, address: str, device_token: str = ""
) -> ApiError | None:
    """Set a password by a mailed code, and end every session.

    Args:
        session: the transaction.
        email: the account's email address.
        otp: the code.
        password: the new password.
        address: the client's IP address.
        device_token: from an earlier sign-in; empty if there was none.

    Returns:
        None, or an error: returned, not raised, so that a wrong attempt stays counted.

    Raises:
        ApiError: 400 if the password is refused.
    """
    email, network = email.lower(), network_of(address)
    registration.refuse_weak(password, email)
    is_known = guesses.is_known(session, email, device_token)
    guess = guesses.at(session, "code", email, network, is_known=is_known)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    is_own = guesses.is_own(session, "code", email, network)
    account, outcome = registration.account_of(session, email, hold=True), Check.WRONG
    pending = awaiting(session, account.id if account else None, "password_reset", email)
    if pending is not None:
        place = network if is_own or pending.network == network else None
        outcome = codes.check(session, pending, otp, guesses.A_DEVICE if is_known else place)
    if outcome is not Check.RIGHT or account is None:
        return OTP_ERRORS[outcome]()
    registration.refuse_weak(password, email, account.company_name)
    guesses.attempts.give_back(*guess)
    _set_password(session, account, password, network)
    notify(session, account, "password_reset", address)
    return None


def confirm(session: Session, account_id: UUID, password: str, address: str) -> ApiError | None:
    """Check the password of an account; a wrong one counts as at sign-in.

    Returns as `reset_password`.
    """
    account = _authenticated(session, account_id, password, address)
    return account if isinstance(account, ApiError) else None


def change_password(
    session: Session, account_id: UUID, current: str, password: str, address: str
) -> ApiError | None:
    """Replace a password and end every session; returns as `reset_password`."""
    account = _authenticated(session, account_id, current, address)
    if isinstance(account, ApiError):
        return account
    registration.refuse_weak(password, account.email, account.company_name)
    _set_password(session, account, password, network_of(address))
    notify(session, account, "password_changed", address)
    return None


def send_address_code(
    session: Session, account_id: UUID, password: str, email: str, address: str
) -> ApiError | None:
    """Mail a code to a new email address; the answer does not show whether it is taken."""
    account, email = _authenticated(session, account_id, password, address), email.lower()
    if isinstance(account, ApiError):
        return account
    asked = ask_for_code(session, account, "new_address", email, address)
    if asked.wait:
        return too_many_requests(asked.wait)
    registration.hold(session, email)
    is_taken = registration.account_of(session, email) is not None
    if not asked.is_on_its_way:
        network = network_of(address)
        send_code(session, account, "new_address", email, network, is_for_nobody=is_taken)
    return None


def change_address(
    session: Session,
    account_id: UUID,
    otp: str,
    address: str,
    *,
    session_id: UUID | None,
    email: str | None = None,
) -> ApiError | None:
    """Set the email address that a code was mailed to; both addresses are notified.

    Every other session ends (OWASP ASVS 5.0, 7.4.3): the password is reset by another mailbox now,
    and another signed-in party may be the reason for the change.

    Args:
        session: the transaction.
        account_id: the account.
        otp: the code.
        address: the client's IP address.
        session_id: the session of the request, which is kept.
        email: the expected new address; None for the one that the code was mailed to.

    Returns:
        None, or an error: returned, not raised, so that a wrong attempt stays counted.
    """
    # Lock order everywhere in this module: the account, then the pending proof.
    account = session.get_one(Account, account_id, with_for_update={"key_share": True})
    before = account.email
    guess = guesses.at(session, "code", before, network_of(address), is_known=True)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    pending = awaiting(session, account_id, "new_address")
    if pending is not None and email is not None and pending.email != email.lower():
        pending = None
    outcome = codes.check(session, pending, otp, guesses.A_DEVICE) if pending else Check.WRONG
    if outcome is not Check.RIGHT or pending is None:
        return OTP_ERRORS[outcome]()
    registration.hold(session, pending.email)
    forget(session, pending)
    taken = select(Account.id).where(Account.email == pending.email)
    if session.scalar(taken) is not None:
        return OTP_ERRORS[Check.WRONG]()
    guesses.attempts.give_back(*guess)
    account.email = pending.email
    sessions.end_others(session, account_id, session_id)
    guesses.remember_alone(session, account, network_of(address))
    registration.withhold_others(session, account.email)
    for recipient in (before, account.email):
        notify(session, account, "address_changed", address, recipient)
    return None


def close(session: Session, account_id: UUID, password: str, address: str) -> ApiError | None:
    """Close an account for good: end its sessions and secrets, and free its email address."""
    account = _authenticated(session, account_id, password, address)
    if isinstance(account, ApiError):
        return account
    notify(session, account, "closed", address)
    email = account.email
    sessions.end(session, account.id)
    _forget_pending(session, account)
    session.execute(delete(KnownNetwork).where(KnownNetwork.account_id == account.id))
    session.execute(
        update(EmailSender)
        .where(EmailSender.account_id == account.id)
        .values(display_name="", reply_to="")
    )
    session.execute(
        update(WebhookPolicy)
        .where(WebhookPolicy.account_id == account.id)
        .values(allowed_networks=[])
    )
    account.closed_at = database_time(session)
    account.email = f"{account.id}@closed.invalid"  # a reserved domain (RFC 2606)
    session.flush()
    _publish_revoked(session, account, email)
    return None


def _publish_revoked(session: Session, account: Account, email: str) -> None:
    """Publish which secrets the database has revoked in this transaction, with the closing.

    Ingress workers revoke them on that event, or with their next poll.
    """
    ended = revoked.by_this_transaction(session, account.id)
    if ended:
        fact = SecretRevoked(
            **of_account(account, email),
            secret_ids=ended,
            reason="The account was closed.",
            kinds=revoked.kinds_of(session, ended),
            cause="account_closed",
        )
        outbox.add_fact(session, fact, account.id, source=SOURCE)


def _authenticated(
    session: Session, account_id: UUID, password: str, address: str
) -> Account | ApiError:
    """Return the account if the password is right; a wrong one counts as at sign-in."""
    account = session.get_one(Account, account_id, options=[undefer(Account.password_hash)])
    # A signed-in caller has a separate limit from strangers.
    guess = guesses.at(session, "password", account.email, network_of(address), is_known=True)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    if not shown.is_right(session, account, password):
        return ApiError(*WRONG_PASSWORD)
    guesses.attempts.give_back(*guess)
    return account


def _set_password(session: Session, account: Account, password: str, network: str) -> None:
    """Set the password, end sessions and pending proofs, and forget every network but `network`."""
    account.password_hash = passwords.hash_password(password)
    sessions.end(session, account.id)
    guesses.remember_alone(session, account, network)
    _forget_pending(session, account)


def _forget_pending(session: Session, account: Account) -> None:
    mine = select(PendingProof).where(PendingProof.account_id == account.id)
    for pending in session.scalars(mine.with_for_update()):
        forget(session, pending)


def forget(session: Session, pending: PendingProof) -> None:
    """Delete a pending proof; the next request mails a code without waiting a minute."""
    guesses.attempts.give_back(guesses.again(pending.purpose, pending.email, pending.network))
    session.delete(pending)


def ask_for_code(
    session: Session, account: Account, purpose: str, email: str, address: str
) -> guesses.Asked:
    """Count a code for another address of an account, requested by its owner.

    Args:
        session: the transaction.
        account: the account, locked.
        purpose: as in `PendingProof`.
        email: the recipient.
        address: the client's IP address.
    """
    network, of_account = network_of(address), guesses.new_addresses(account.id)
    pending = awaiting(session, account.id, purpose)
    if pending is None or pending.email == email:
        return guesses.ask_for_mail(session, purpose, email, network, of_account)
    # A code for another address replaced this one's in the meantime, so it must be mailed again.
    return guesses.Asked(
        wait=guesses.attempts.take(*guesses.mails(session, email, network), of_account)
    )


def send_code(
    session: Session,
    account: Account | None,
    purpose: str,
    email: str,
    network: str,
    *,
    is_for_nobody: bool = False,
) -> None:
    """Mail a code for a purpose, unless one was mailed less than a minute ago.

    Args:
        session: the transaction.
        account: the account; None if the address has none.
        purpose: as in `PendingProof`.
        email: the recipient.
        network: the client's network.
        is_for_nobody: as for `codes.send`.
    """
    is_reset = purpose == "password_reset"
    account_id = account.id if account else None
    pending = awaiting(session, account_id, purpose, email if is_reset else "")
    if pending is None:
        pending = PendingProof(purpose=purpose, account_id=account_id)
    is_old = codes.may_send_again(session, pending)
    if pending.email == email and not is_old:
        return
    pending.email, pending.network = email, network
    company_name = account.company_name if account and is_reset else ""
    codes.send(session, pending, company_name, is_for_nobody=is_for_nobody)


def awaiting(
    session: Session, account_id: UUID | None, purpose: str, email: str = ""
) -> PendingProof | None:
    """Return the pending proof of a purpose, locked.

    Args:
        session: the transaction.
        account_id: the account; None for a proof without one.
        purpose: as in `PendingProof`.
        email: the address that the code was mailed to; empty for any.
    """
    found = select(PendingProof).where(PendingProof.purpose == purpose)
    if email:  # the same statement with and without an account
        whose = PendingProof.account_id.is_not_distinct_from(literal(account_id, Uuid))
        found = found.where(PendingProof.email == email, whose)
    else:
        found = found.where(PendingProof.account_id == account_id)
    return session.scalar(found.with_for_update())


WRONG_PASSWORD = (403, "wrong_password", "The password is wrong.")
