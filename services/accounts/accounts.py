"""What the routes of `api.py` do."""

from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, undefer

from services.accounts import codes
from services.accounts.codes import Check
from shared import passwords, tokens
from shared.bus.events import AccountSignedIn, AccountSignInFailed, AccountVerified
from shared.bus.message import message_for
from shared.db.models import Account, RevokedToken
from shared.http.errors import ApiError
from shared.ids import derived_id, new_id
from shared.outbox import store

SOURCE = "services.accounts"


def register(session: Session, company_name: str, email: str, password: str) -> Account:
    """Make an account and mail it a code.

    An address that was never proved may be registered again after a minute, with the new name and
    password: else anybody could block an address by registering it first. The code before stops
    working, so nobody proves an address for a password that somebody else has set since.

    Raises:
        ApiError: 400, when the address belongs to a proved account or awaits a fresh code, or the
            name is blank.
    """
    email, company_name = email.lower(), company_name.strip()
    if not company_name:
        raise ApiError(400, "invalid_body", "company_name is blank.")
    hashed = passwords.hash_password(password)
    new = insert(Account).values(
        id=new_id(), company_name=company_name, email=email, password_hash=hashed
    )
    account: Account | None = session.scalar(
        new.on_conflict_do_update(
            index_elements=[Account.email],
            set_={"company_name": company_name, "password_hash": hashed},
            where=Account.email_verified_at.is_(None),
        ).returning(Account)
    )
    if account is None or not codes.request(session, account):
        raise ApiError(400, "email_taken", "An account with this email address exists already.")
    return account


def verify(session: Session, email: str, otp: str) -> ApiError | None:
    """Prove an address by its code; a wrong try is counted, so the error is returned."""
    account = find(session, email, hold=True)
    outcome = codes.check(session, account, otp) if account else Check.WRONG
    if outcome is Check.RIGHT and account is not None:
        account.email_verified_at = datetime.now(UTC)
        fact = AccountVerified(
            account_id=account.id, company_name=account.company_name, email=account.email
        )
        store.add(session, [message_for(fact, source=SOURCE, correlation_id=account.id)])
        return None
    return _OTP_ERRORS[outcome]()


def sign_in(session: Session, email: str, password: str, address: str) -> Account | ApiError:
    """The account behind an email address and its password; told to the audit log either way.

    Args:
        session: the transaction.
        email: as it was given.
        password: as it was given.
        address: the client's.

    Returns:
        401 as an error when they do not match, so that what is told is committed.

    Raises:
        ApiError: 403 when the email address is not proved yet.
    """
    account = find(session, email)
    if not passwords.matches(password, account.password_hash if account else None) or not account:
        _tell_failure(session, email, account, address)
        return ApiError(401, "invalid_credentials", "The email address or the password is wrong.")
    if account.email_verified_at is None:
        raise ApiError(
            403,
            "email_not_verified",
            "Prove your email address first: POST /users/verify-otp/ with the code we mailed you.",
        )
    if passwords.is_outdated(account.password_hash):
        account.password_hash = passwords.hash_password(password)
    fact = AccountSignedIn(
        account_id=account.id,
        company_name=account.company_name,
        email=account.email,
        address=address,
    )
    store.add(session, [message_for(fact, source=SOURCE, correlation_id=account.id)])
    return account


def _tell_failure(session: Session, email: str, account: Account | None, address: str) -> None:
    # Whether there is such an account or not: else the time that it takes would tell.
    fact = AccountSignInFailed(
        email=email.lower(), account_id=account.id if account else None, address=address
    )
    minute = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M")
    fact_id = derived_id(fact.TYPE, account.id if account else address, minute)
    about = account.id if account else fact.email
    store.add(session, [message_for(fact, source=SOURCE, correlation_id=about, message_id=fact_id)])


def use_up(session: Session, refresh: str) -> Account:
    """Take a refresh token out of use and return its account.

    Raises:
        ApiError: 401, when it is no refresh token of ours, has expired or was used up before.
    """
    invalid = ApiError(
        401, "invalid_refresh_token", "Sign in again: this token is used or expired."
    )
    try:
        token = tokens.check(refresh, "refresh")
    except tokens.InvalidTokenError:
        raise invalid from None
    used = insert(RevokedToken).values(token_id=token.id, expires_at=token.expires_at)
    if session.execute(used.on_conflict_do_nothing()).rowcount == 0:  # type: ignore[attr-defined]
        raise invalid
    session.execute(delete(RevokedToken).where(RevokedToken.expires_at < datetime.now(UTC)))
    account = session.get(Account, token.account_id)
    if account is None:
        raise invalid
    return account


def find(session: Session, email: str, *, hold: bool = False) -> Account | None:
    """The account of an address, in whatever case it is written.

    Args:
        session: the transaction.
        email: the address.
        hold: keep others from changing it until the transaction ends; before its code, never after.
    """
    wanted = select(Account).where(Account.email == email.lower())
    if hold:
        wanted = wanted.with_for_update()
    return session.scalar(wanted.options(undefer(Account.password_hash)))


_OTP_ERRORS = {
    Check.RIGHT: lambda: ApiError(400, "invalid_otp", "The code is wrong."),
    Check.WRONG: lambda: ApiError(400, "invalid_otp", "The code is wrong."),
    Check.EXPIRED: lambda: ApiError(
        400, "otp_expired", "The code has expired. Ask for a new one at /users/request-otp/."
    ),
    Check.LOCKED: lambda: ApiError(
        400, "otp_locked", "Too many wrong tries. Ask for a new code at /users/request-otp/."
    ),
}
