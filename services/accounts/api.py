"""The HTTP side: bodies, answers, routes."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.accounts import accounts, codes
from shared import tokens
from shared.bus.events import Email, Line
from shared.db.models import Account
from shared.docstrings import summary
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route

# NIST SP 800-63B, 5.1.1.2: at least 8 characters, long ones allowed, no rules of composition.
Password = Annotated[str, msgspec.Meta(min_length=8, max_length=128)]
Code = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{6}(?![\s\S])")]
TokenText = Annotated[str, msgspec.Meta(max_length=2_000)]


class Registration(msgspec.Struct, kw_only=True):
    """A new account."""

    company_name: Line
    email: Email
    password: Password


class Registered(msgspec.Struct, kw_only=True):
    """The account that was made."""

    id: UUID
    company_name: str
    email: str


class Proof(msgspec.Struct, kw_only=True):
    """An address and the code that was mailed to it."""

    email: Email
    otp: Code


class Address(msgspec.Struct, kw_only=True):
    """An email address."""

    email: Email


class Credentials(msgspec.Struct, kw_only=True):
    """An address and a password."""

    email: Email
    password: Annotated[str, msgspec.Meta(max_length=128)]


class Refresh(msgspec.Struct, kw_only=True):
    """A refresh token."""

    refresh: TokenText


class Detail(msgspec.Struct, kw_only=True):
    """A sentence."""

    detail: str


class SignedIn(msgspec.Struct, kw_only=True):
    """Tokens: `access` for the Authorization header, `refresh` for the next pair."""

    access: str
    refresh: str
    id: UUID
    company_name: str
    email: str


def register(session: Session, call: Call[Registration, None]) -> Answer:
    """Make an account; a code is mailed to it."""
    body = call.body
    account = accounts.register(session, body.company_name, body.email, body.password)
    return Answer(
        201, Registered(id=account.id, company_name=account.company_name, email=account.email)
    )


def verify_otp(session: Session, call: Call[Proof, None]) -> Answer | ApiError:
    """Prove an address."""
    error = accounts.verify(session, call.body.email, call.body.otp)
    return error or Answer(200, Detail(detail="Your email address is verified. You can sign in."))


def request_otp(session: Session, call: Call[Address, None]) -> Answer:
    """Mail a new code. The answer is the same for every address, so it tells nobody who is here."""
    account = accounts.find(session, call.body.email, hold=True)
    if account is not None and account.email_verified_at is None:
        codes.request(session, account)
    return Answer(
        200, Detail(detail="If this address awaits a code, a new one is on its way to it.")
    )


def login(session: Session, call: Call[Credentials, None]) -> Answer | ApiError:
    """Sign in."""
    body = call.body
    account = accounts.sign_in(session, body.email, body.password, call.address)
    return account if isinstance(account, ApiError) else _signed_in(account)


def refresh(session: Session, call: Call[Refresh, None]) -> Answer:
    """A new pair of tokens for a refresh token, which is thereby used up."""
    return _signed_in(accounts.use_up(session, call.body.refresh))


def logout(session: Session, call: Call[Refresh, None]) -> Answer:
    """Take a refresh token out of use."""
    accounts.use_up(session, call.body.refresh)
    return Answer(204)


def _signed_in(account: Account) -> Answer:
    return Answer(
        200,
        SignedIn(
            access=tokens.make(account.id, "access").text,
            refresh=tokens.make(account.id, "refresh").text,
            id=account.id,
            company_name=account.company_name,
            email=account.email,
        ),
    )


_USED_REFRESH = (401, "invalid_refresh_token", "Sign in again: this token is used or expired.")


def _post(path: str, handler: Any, **more: Any) -> Route:
    return Route(
        method="POST",
        path=f"/users/{path}/",
        handler=handler,
        summary=summary(handler),
        throttled=True,
        tag="Accounts",
        **more,
    )


ROUTES = (
    _post(
        "auth/register",
        register,
        body=Registration,
        answers={201: Registered},
        errors=((400, "email_taken", "An account with this email address exists already."),),
    ),
    _post(
        "verify-otp",
        verify_otp,
        guards="email",
        body=Proof,
        answers={200: Detail},
        errors=(
            (400, "invalid_otp", "The code is wrong."),
            (400, "otp_expired", "The code has expired."),
            (400, "otp_locked", "Too many wrong tries."),
        ),
    ),
    _post("request-otp", request_otp, guards="email", body=Address, answers={200: Detail}),
    _post(
        "auth/login",
        login,
        guards="email",
        body=Credentials,
        answers={200: SignedIn},
        errors=(
            (401, "invalid_credentials", "The email address or the password is wrong."),
            (403, "email_not_verified", "Prove your email address first."),
        ),
    ),
    _post("auth/refresh", refresh, body=Refresh, answers={200: SignedIn}, errors=(_USED_REFRESH,)),
    _post("auth/logout", logout, body=Refresh, answers={204: None}, errors=(_USED_REFRESH,)),
)
