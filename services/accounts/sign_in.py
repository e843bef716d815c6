"""Signing in, and what comes of it."""

from datetime import UTC, datetime

from sqlalchemy.orm import Session, undefer

from services.accounts import SOURCE, guesses, registration, shown
from shared.bus import outbox
from shared.bus.contract.events import AccountSignedIn, AccountSignInFailed, of_account
from shared.db.models import Account
from shared.http.errors import ApiError, account_blocked, too_many_requests
from shared.http.standing import is_blocked
from shared.ids import derived_id
from shared.security import passwords
from shared.security.networks import network_of


def sign_in(
    session: Session, email: str, password: str, address: str, device_token: str = ""
) -> Account | ApiError:
    """The account behind an email address and its password; told to the audit log either way.

    Args:
        session: the transaction.
        email: as it was given.
        password: as it was given.
        address: the client's.
        device_token: of an earlier sign-in; empty where there was none.

    Returns:
        An error, so that what is told is committed: 401 when they do not match, 403 when the email
        address is not proved yet or the account blocked, 429 when it was guessed at too often.
    """
    network = network_of(address)
    is_known = guesses.is_known(session, email, device_token)
    guess = guesses.at(session, "password", email, network, is_known=is_known)
    if wait := guesses.attempts.take(*guess):
        return too_many_requests(wait)
    account = find(session, email)
    stored = registration.password_awaiting(session, email.lower(), network)
    if account:
        is_right = shown.is_right(session, account, password)
    else:
        is_right = passwords.matches(password, None)
    # Looked at whether there is an account or not: who registers at another's address and signs in
    # is answered as at one that is free, after the same work.
    is_waiting = not is_right and passwords.matches(password, stored)
    if not is_right and not is_waiting:
        _tell_failure(session, account, address)
        return ApiError(401, "invalid_credentials", "The email address or the password is wrong.")
    guesses.attempts.give_back(*guess)
    if account is None or is_waiting:
        return ApiError(
            403,
            "email_not_verified",
            "Prove your email address first: POST /users/verify-otp/ with the code we mailed you.",
        )
    if passwords.is_outdated(account.password_hash):
        account.password_hash = passwords.hash_password(password)
    if is_blocked(session, account.id):
        return account_blocked()
    is_new_place = guesses.remember(session, account, network)
    fact = AccountSignedIn(**of_account(account), address=address, is_new_place=is_new_place)
    outbox.tell(session, fact, account.id, source=SOURCE)
    return account


def _tell_failure(session: Session, account: Account | None, address: str) -> None:
    # Whether there is such an account or not: else the time that it takes would tell.
    fact = AccountSignInFailed(
        email=account.email if account else "",
        account_id=account.id if account else None,
        address=address,
    )
    minute = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M")
    fact_id = derived_id(fact.TYPE, account.id if account else address, minute)
    about = account.id if account else address
    outbox.tell(session, fact, about, source=SOURCE, message_id=fact_id)


def find(session: Session, email: str) -> Account | None:
    """The account of a proved address, in whatever case it is written.

    Args:
        session: the transaction.
        email: the address.
    """
    wanted = registration.by_address(email.lower())
    return session.scalar(wanted.options(undefer(Account.password_hash)))
