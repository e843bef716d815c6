"""What the routes of `api.py` do."""

from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, undefer

from services.accounts import codes
from services.accounts.codes import Check
from shared import passwords, tokens
from shared.bus.events import AccountVerified
from shared.bus.message import message_for
from shared.db.models import Account, RevokedToken
from shared.http.errors import ApiError
from shared.ids import new_id
from shared.outbox import store


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
    account = find(session, email)
    outcome = codes.check(session, account, otp) if account else Check.WRONG
    if outcome is Check.RIGHT and account is not None:
        account.email_verified_at = datetime.now(UTC)
        fact = AccountVerified(
            account_id=account.id, company_name=account.company_name, email=account.email
        )
        store.add(
            session, [message_for(fact, source="services.accounts", correlation_id=account.id)]
        )
        return None
    return _OTP_ERRORS[outcome]()


def sign_in(session: Session, email: str, password: str) -> Account:
    """The account behind an address and its password.

    Raises:
        ApiError: 401 when they do not match; 403 when the address is not proved yet.
    """
    account = find(session, email)
    if not passwords.matches(password, account.password_hash if account else None) or not account:
        raise ApiError(401, "invalid_credentials", "The email address or the password is wrong.")
    if account.email_verified_at is None:
        raise ApiError(
            403,
            "email_not_verified",
            "Prove your email address first: POST /users/verify-otp/ with the code we mailed you.",
        )
    if passwords.is_outdated(account.password_hash):
        account.password_hash = passwords.hash_password(password)
    return account


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


def find(session: Session, email: str) -> Account | None:
    """The account of an address, in whatever case it is written."""
    wanted = select(Account).where(Account.email == email.lower())
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
