"""An owner's changes to an account: its password, its address, its end.

Whoever is signed in shows the password again; whoever has lost it proves the address by a code.
Each ends the sessions that a thief might have, and is told to the address that it was before.
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
from shared.db.models import Account, EmailSender, KnownNetwork, PendingProof
from shared.db.session import database_time
from shared.http.errors import ApiError, too_many_requests
from shared.security import passwords
from shared.security.networks import network_of


def tell(
    session: Session,
    account: Account,
    what: str,
    address: str,
    email: str = "",
    *,
    value: str = "",
) -> None:
    """Tell an owner what happened; at `email`, where that is not the account's.

    `value` is what something was changed to, where its owner is to read that.
    """
    fact = AccountChanged(
        **of_account(account, email),
        what=what,  # type: ignore[arg-type]
        address=address,
        value=value,
    )
    outbox.tell(session, fact, account.id, source=SOURCE)


def send_reset_code(
    session: Session, email: str, address: str, device_token: str = ""
) -> ApiError | None:
    """Mail a code that sets a new password, where there is such an account. Nothing tells which.

    Args:
        session: the transaction.
        email: the address.
        address: the client's.
        device_token: of an earlier sign-in; empty where there was none.

    Returns:
        None, or 429 where no more is mailed to the address today.
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
    """Set a password by a mailed code; every session ends.

    Args:
        session: the transaction.
        email: the account's address.
        otp: the code.
        password: the new one.
        address: the client's.
        device_token: of an earlier sign-in; empty where there was none.

    Returns:
        None, or an error, so that a wrong try stays counted.

    Raises:
        ApiError: 400, when the password is refused.
    """
    email, network = email.lower(), network_of(address)
    registration.refuse_weak(password, email)
    is_known = guesses.is_known(session, email, device_token)
    guess = guesses.at(session, "code", email, network, is_known=is_known)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    is_own = is_known or guesses.is_own(session, "password", email, network)
    account, outcome = registration.account_of(session, email, hold=True), Check.WRONG
    pending = awaiting(session, account.id if account else None, "password_reset", email)
    if pending is not None:
        is_own = is_own or pending.network == network
        outcome = codes.check(session, pending, otp, is_own=is_own)
    if outcome is not Check.RIGHT or account is None:
        return OTP_ERRORS[outcome]()
    registration.refuse_weak(password, email, account.company_name)
    guesses.attempts.give_back(*guess)
    _set_password(session, account, password, network)
    tell(session, account, "password_reset", address)
    return None


def confirm(session: Session, account_id: UUID, password: str, address: str) -> ApiError | None:
    """Whether a password is an account's; a wrong one counts as at sign-in.

    Returns as `reset_password`.
    """
    account = _shown(session, account_id, password, address)
    return account if isinstance(account, ApiError) else None


def change_password(
    session: Session, account_id: UUID, current: str, password: str, address: str
) -> ApiError | None:
    """Set a password by the one before; every session ends. Returns as `reset_password`."""
    account = _shown(session, account_id, current, address)
    if isinstance(account, ApiError):
        return account
    registration.refuse_weak(password, account.email, account.company_name)
    _set_password(session, account, password, network_of(address))
    tell(session, account, "password_changed", address)
    return None


def send_address_code(
    session: Session, account_id: UUID, password: str, email: str, address: str
) -> ApiError | None:
    """Mail a code to the address that an account is to have; it tells not whether one is there."""
    account, email = _shown(session, account_id, password, address), email.lower()
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
    """Give an account the address that a code was mailed to; both addresses are told.

    Every other session ends (OWASP ASVS 5.0, 7.4.3): what resets the password is another one now,
    and whoever else was signed in may be the reason.

    Args:
        session: the transaction.
        account_id: whose.
        otp: the code.
        address: the client's.
        session_id: of the request, which goes on.
        email: the address that is meant; None: whichever the code was mailed to.

    Returns:
        None, or an error, so that a wrong try stays counted.
    """
    # Locked before what is pending, as everywhere here.
    account = session.get_one(Account, account_id, with_for_update={"key_share": True})
    before = account.email
    guess = guesses.at(session, "code", before, network_of(address), is_known=True)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    pending = awaiting(session, account_id, "new_address")
    if pending is not None and email is not None and pending.email != email.lower():
        pending = None
    outcome = codes.check(session, pending, otp, is_own=True) if pending else Check.WRONG
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
    for told in (before, account.email):
        tell(session, account, "address_changed", address, told)
    return None


def close(session: Session, account_id: UUID, password: str, address: str) -> ApiError | None:
    """Close an account for good: its sessions and secrets end, and its address is free again."""
    account = _shown(session, account_id, password, address)
    if isinstance(account, ApiError):
        return account
    tell(session, account, "closed", address)
    email = account.email
    sessions.end(session, account.id)
    _forget_pending(session, account)
    session.execute(delete(KnownNetwork).where(KnownNetwork.account_id == account.id))
    session.execute(
        update(EmailSender)
        .where(EmailSender.account_id == account.id)
        .values(display_name="", reply_to="")
    )
    account.closed_at = database_time(session)
    account.email = f"{account.id}@closed.invalid"  # RFC 2606: nobody's
    session.flush()
    _tell_revoked(session, account, email)
    return None


def _tell_revoked(session: Session, account: Account, email: str) -> None:
    """Tell of the secrets that the database has revoked with the closing, in this transaction.

    Every ingress worker revokes what it hears of at once, and what it does not with its next poll.
    """
    ended = revoked.by_this_transaction(session, account.id)
    if ended:
        fact = SecretRevoked(
            **of_account(account, email), secret_ids=ended, reason="The account was closed."
        )
        outbox.tell(session, fact, account.id, source=SOURCE)


def _shown(session: Session, account_id: UUID, password: str, address: str) -> Account | ApiError:
    """The account, whose password was shown; wrong ones count as they do at sign-in."""
    account = session.get_one(Account, account_id, options=[undefer(Account.password_hash)])
    # Signed in already, so it is none of the strangers who guess.
    guess = guesses.at(session, "password", account.email, network_of(address), is_known=True)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    if not shown.is_right(session, account, password):
        return ApiError(*WRONG_PASSWORD)
    guesses.attempts.give_back(*guess)
    return account


def _set_password(session: Session, account: Account, password: str, network: str) -> None:
    """Set it; what was begun by the one before ends, and only `network` is known any more."""
    account.password_hash = passwords.hash_password(password)
    sessions.end(session, account.id)
    guesses.remember_alone(session, account, network)
    _forget_pending(session, account)


def _forget_pending(session: Session, account: Account) -> None:
    mine = select(PendingProof).where(PendingProof.account_id == account.id)
    for pending in session.scalars(mine.with_for_update()):
        forget(session, pending)


def forget(session: Session, pending: PendingProof) -> None:
    """Nothing waits any more, so whoever asks again has a code mailed at once."""
    sooner = guesses.again(pending.purpose, pending.email, pending.network)
    guesses.attempts.give_back(sooner)
    session.delete(pending)


def ask_for_code(
    session: Session, account: Account, purpose: str, email: str, address: str
) -> guesses.Asked:
    """Count a code for another address of an account's, which its owner asks for.

    Args:
        session: the transaction.
        account: whose; held.
        purpose: what it is to prove.
        email: where it goes.
        address: the client's.
    """
    network, of_account = network_of(address), guesses.new_addresses(account.id)
    pending = awaiting(session, account.id, purpose)
    if pending is None or pending.email == email:
        return guesses.ask_for_mail(session, purpose, email, network, of_account)
    # Another address was asked for meanwhile, and its code has taken the place of this one's.
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
    """Mail a code for an account's purpose, unless one was mailed there a moment ago.

    Args:
        session: the transaction.
        account: whose; None where nobody's is at the address.
        purpose: what it is to prove.
        email: where it goes.
        network: from where it was asked for.
        is_for_nobody: see `codes.send`.
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
    """What waits for the code of a purpose; held.

    Args:
        session: the transaction.
        account_id: whose; None for nobody's.
        purpose: what it is to prove.
        email: where the code went; empty for wherever that was.
    """
    found = select(PendingProof).where(PendingProof.purpose == purpose)
    if email:  # one statement, whether there is an account or not
        whose = PendingProof.account_id.is_not_distinct_from(literal(account_id, Uuid))
        found = found.where(PendingProof.email == email, whose)
    else:
        found = found.where(PendingProof.account_id == account_id)
    return session.scalar(found.with_for_update())


WRONG_PASSWORD = (403, "wrong_password", "The password is wrong.")
