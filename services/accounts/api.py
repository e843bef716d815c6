"""HTTP API of accounts: request bodies, answers and routes."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.accounts import credential_api, registration, session_api, sessions, sign_in
from services.accounts.bodies import Code, Detail, DeviceToken, Given, Password
from services.accounts.email_sender import api as email_sender_api
from services.accounts.email_sender import locale_api
from shared.bus.contract.events import Email, Line
from shared.docstrings import summary
from shared.http.errors import BLOCKED, ApiError
from shared.http.route import Answer, Call, Route
from shared.security import device_tokens
from shared.security.networks import network_of

TokenText = Annotated[str, msgspec.Meta(max_length=2_000)]


class Registration(msgspec.Struct, kw_only=True):
    """A new account."""

    company_name: Line
    email: Email
    password: Password


class Registered(msgspec.Struct, kw_only=True):
    """The account as it will be once its email address is proved."""

    id: UUID
    company_name: str
    email: str


class Proof(msgspec.Struct, kw_only=True):
    """An email address and the code that was mailed to it.

    If several registrations wait for the address, also the password or the id of yours.
    """

    email: Email
    otp: Code
    password: Given | None = None
    registration_id: UUID | None = None


class Address(msgspec.Struct, kw_only=True):
    """An email address and, if several registrations wait for it, the id of yours."""

    email: Email
    registration_id: UUID | None = None


class Credentials(msgspec.Struct, kw_only=True):
    """An email address and a password."""

    email: Email
    password: Given
    device_token: DeviceToken = ""


class Refresh(msgspec.Struct, kw_only=True):
    """A refresh token."""

    refresh: TokenText


class Renewal(Refresh, kw_only=True):
    """A refresh token and, to be safe from a lost answer, an `attempt_id`: a UUID that you make.

    The same two give the same successor again. Keep the id as secret as the token, and make a new
    one for each token.
    """

    attempt_id: UUID | None = None


class Renewed(msgspec.Struct, kw_only=True):
    """Tokens: `access` for the Authorization header, `refresh` for the next pair."""

    access: str
    refresh: str
    id: UUID
    company_name: str
    email: str


class SignedIn(Renewed, kw_only=True):
    """Tokens, and a `device_token` to keep.

    `device_token` does not sign in. Sent with the next sign-in or password reset it exempts the
    request from the limits on strangers' guesses, from any network; it is valid until the password
    changes.
    """

    device_token: str


def register(session: Session, call: Call[Registration, None]) -> Answer:
    """Register; a code is mailed. The answer does not show whether the address has an account."""
    body = call.body
    made = registration.register(
        session, body.company_name, body.email, body.password, call.address
    )
    return Answer(201, msgspec.convert(made, Registered, from_attributes=True))


def verify_otp(session: Session, call: Call[Proof, None]) -> Answer | ApiError:
    """Prove an email address."""
    body = call.body
    error = registration.verify(
        session,
        body.email,
        body.otp,
        call.address,
        password=body.password,
        registration_id=body.registration_id,
    )
    return error or Answer(200, Detail(detail="Your email address is verified. You can sign in."))


def request_otp(session: Session, call: Call[Address, None]) -> Answer | ApiError:
    """Mail a new code. The answer is the same for every address."""
    body = call.body
    error = registration.send_again(session, body.email, body.registration_id, call.address)
    return error or Answer(
        200, Detail(detail="If this address awaits a code, a new one is on its way to it.")
    )


def login(session: Session, call: Call[Credentials, None]) -> Answer | ApiError:
    """Sign in."""
    body = call.body
    account = sign_in.sign_in(session, body.email, body.password, call.address, body.device_token)
    if isinstance(account, ApiError):
        return account
    pair = sessions.begin(session, account, network_of(call.address), call.client)
    device_token = device_tokens.token(account.id, account.password_hash)
    return Answer(200, SignedIn(**_fields(pair), device_token=device_token))


def refresh(session: Session, call: Call[Renewal, None]) -> Answer | ApiError:
    """Exchange a refresh token, which works once, for a new pair of tokens."""
    body, network = call.body, network_of(call.address)
    renewed = sessions.renew(session, body.refresh, network, body.attempt_id)
    return renewed if isinstance(renewed, ApiError) else Answer(200, Renewed(**_fields(renewed)))


def logout(session: Session, call: Call[Refresh, None]) -> Answer | ApiError:
    """End the session of a refresh token; its access tokens end with it."""
    return sessions.end_by(session, call.body.refresh) or Answer(204)


def _fields(pair: sessions.Pair) -> dict[str, Any]:
    return {
        "access": pair.access,
        "refresh": pair.refresh,
        "id": pair.account.id,
        "company_name": pair.account.company_name,
        "email": pair.account.email,
    }


TOO_MANY = (429, "rate_limited", "Too many guesses; `Retry-After` says how long to wait.")


def _post(path: str, handler: Any, **more: Any) -> Route:
    return Route(
        method="POST",
        path=f"/users/{path}/",
        handler=handler,
        summary=summary(handler),
        tag="Accounts",
        **more,
    )


ROUTES = (
    _post(
        "auth/register",
        register,
        throttled=True,
        body=Registration,
        answers={201: Registered},
        errors=((400, "weak_password", "The password is refused; `faults` says for what."),),
    ),
    _post(
        "verify-otp",
        verify_otp,
        body=Proof,
        answers={200: Detail},
        errors=(
            TOO_MANY,
            (400, "invalid_otp", "The code is wrong."),
            (400, "otp_expired", "The code has expired."),
            (400, "otp_locked", "Too many wrong tries."),
            registration.SEVERAL,
        ),
    ),
    _post("request-otp", request_otp, throttled=True, body=Address, answers={200: Detail}),
    _post(
        "auth/login",
        login,
        body=Credentials,
        answers={200: SignedIn},
        errors=(
            TOO_MANY,
            (401, "invalid_credentials", "The email address or the password is wrong."),
            (403, "email_not_verified", "Prove your email address first."),
            BLOCKED,
        ),
    ),
    _post(
        "auth/refresh",
        refresh,
        body=Renewal,
        answers={200: Renewed},
        errors=(sessions.USED, BLOCKED),
    ),
    _post("auth/logout", logout, body=Refresh, answers={204: None}, errors=(sessions.USED,)),
    *session_api.ROUTES,
    *credential_api.ROUTES,
    *email_sender_api.ROUTES,
    *locale_api.ROUTES,
)
