"""Sign-in with an email address and a password."""

from sqlalchemy.orm import Session, undefer

from services.accounts import SOURCE, guesses, registration, shown
from shared.bus import outbox
from shared.bus.contract.events import AccountSignedIn, AccountSignInFailed, of_account
from shared.db.models import Account
from shared.http.errors import ApiError, account_blocked, too_many_requests
from shared.http.standing import is_blocked
from shared.security import passwords
from shared.security.networks import network_of


def sign_in(
    session: Session, email: str, password: str, address: str, device_token: str = ""
) -> Account | ApiError:
    """Return the account of an email address and a password; record the attempt for the audit log.

    Args:
        session: the transaction.
        email: the email address, in any case.
        password: the password.
        address: the client's IP address.
        device_token: from an earlier sign-in; empty if there was none.

    Returns:
        The account, or an error: returned, not raised, so that the record is committed. 401 if they
        do not match; 403 if the email address is not proved or the account is blocked; 429 after
        too many attempts.
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
    # Compared whether or not there is an account: an attacker who registers another's address and
    # signs in gets the same answer as at a free one, after the same work.
    is_waiting = not is_right and passwords.matches(password, stored)
    if not is_right and not is_waiting:
        _record_failure(session, account, address)
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
    if guesses.is_sign_in_recorded(session, account.id, is_new_place=is_new_place):
        fact = AccountSignedIn(**of_account(account), address=address, is_new_place=is_new_place)
        outbox.add_fact(session, fact, account.id, source=SOURCE)
    return account


def _record_failure(session: Session, account: Account | None, address: str) -> None:
    account_id = account.id if account else None
    if not guesses.is_failure_recorded(session, account_id, network_of(address)):
        return
    fact = AccountSignInFailed(
        email=account.email if account else "", account_id=account_id, address=address
    )
    outbox.add_fact(session, fact, account.id if account else address, source=SOURCE)


def find(session: Session, email: str) -> Account | None:
    """Return the account of a proved email address, with its password hash; None if there is none.

    Args:
        session: the transaction.
        email: the email address, in any case.
    """
    wanted = registration.by_address(email.lower())
    return session.scalar(wanted.options(undefer(Account.password_hash)))
