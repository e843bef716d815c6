"""HTTP API: changes of an account by its owner."""

from typing import Any

import msgspec
from sqlalchemy.orm import Session

from services.accounts import credentials
from services.accounts.bodies import Code, Detail, DeviceToken, Given, Password
from shared.bus.contract.events import Email
from shared.docstrings import summary
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route


class ResetRequest(msgspec.Struct, kw_only=True):
    """The email address of an account whose password is lost."""

    email: Email
    device_token: DeviceToken = ""


class Reset(msgspec.Struct, kw_only=True):
    """A new password, and the code that was mailed for it."""

    email: Email
    otp: Code
    password: Password
    device_token: DeviceToken = ""


class PasswordChange(msgspec.Struct, kw_only=True):
    """A new password and the current one."""

    current_password: Given
    password: Password


class AddressChange(msgspec.Struct, kw_only=True):
    """A new email address, and the account's password."""

    email: Email
    password: Given


class AddressProof(msgspec.Struct, kw_only=True):
    """The code that was mailed to the new address.

    With `email`, only that address is set: another request may have named a different one in the
    meantime.
    """

    otp: Code
    email: Email | None = None


class Confirmation(msgspec.Struct, kw_only=True):
    """The password of the signed-in account."""

    password: Given


class Closing(msgspec.Struct, kw_only=True):
    """The password of the account to close."""

    password: Given


def send_reset_code(session: Session, call: Call[ResetRequest, None]) -> Answer | ApiError:
    """Mail a code for setting a new password. The answer is the same for every address."""
    body = call.body
    error = credentials.send_reset_code(session, body.email, call.address, body.device_token)
    return error or Answer(
        200, Detail(detail="If this address has an account, a code is on its way to it.")
    )


def reset(session: Session, call: Call[Reset, None]) -> Answer | ApiError:
    """Set a new password by a mailed code; every session ends."""
    body = call.body
    error = credentials.reset_password(
        session, body.email, body.otp, body.password, call.address, body.device_token
    )
    return error or Answer(200, Detail(detail="Your password is set. Sign in with it."))


def change(session: Session, call: Call[PasswordChange, None]) -> Answer | ApiError:
    """Change your password; every session ends, including this one."""
    body = call.body
    error = credentials.change_password(
        session, call.caller, body.current_password, body.password, call.address
    )
    return error or Answer(200, Detail(detail="Your password is changed. Sign in with it."))


def confirm(session: Session, call: Call[Confirmation, None]) -> Answer | ApiError:
    """Check your password, such as before a program shows a secret."""
    error = credentials.confirm(session, call.caller, call.body.password, call.address)
    return error or Answer(204)


def send_address_code(session: Session, call: Call[AddressChange, None]) -> Answer | ApiError:
    """Begin to change your email address: a code is mailed to the new one."""
    error = credentials.send_address_code(
        session, call.caller, call.body.password, call.body.email, call.address
    )
    return error or Answer(200, Detail(detail="If it can be had, a code is on its way to it."))


def change_address(session: Session, call: Call[AddressProof, None]) -> Answer | ApiError:
    """Set the new address by its code; other sessions end, and both addresses are notified."""
    error = credentials.change_address(
        session,
        call.caller,
        call.body.otp,
        call.address,
        session_id=call.session_id,
        email=call.body.email,
    )
    return error or Answer(200, Detail(detail="Your email address is changed."))


def close(session: Session, call: Call[Closing, None]) -> Answer | ApiError:
    """Close your account for good; its webhook secrets stop working."""
    error = credentials.close(session, call.caller, call.body.password, call.address)
    return error or Answer(204)


_TOO_MANY = (429, "rate_limited", "Too many guesses or emails; `Retry-After` says how long.")
_WEAK = (400, "weak_password", "The password is refused; `faults` says for what.")
_CODE = (
    (400, "invalid_otp", "The code is wrong."),
    (400, "otp_expired", "The code has expired."),
    (400, "otp_locked", "Too many wrong tries."),
)


def _post(path: str, handler: Any, **more: Any) -> Route:
    return Route(
        method="POST",
        path=f"/users/{path}/",
        handler=handler,
        summary=summary(handler),
        tag="Accounts",
        **({"answers": {200: Detail}} | more),
    )


ROUTES = (
    _post("password/reset-code", send_reset_code, throttled=True, body=ResetRequest),
    _post("password/reset", reset, body=Reset, errors=(*_CODE, _WEAK, _TOO_MANY)),
    _post(
        "password",
        change,
        body=PasswordChange,
        bearer=True,
        errors=(credentials.WRONG_PASSWORD, _WEAK, _TOO_MANY),
    ),
    _post(
        "password/confirm",
        confirm,
        body=Confirmation,
        answers={204: None},
        bearer=True,
        errors=(credentials.WRONG_PASSWORD, _TOO_MANY),
    ),
    _post(
        "email",
        send_address_code,
        body=AddressChange,
        bearer=True,
        errors=(credentials.WRONG_PASSWORD, _TOO_MANY),
    ),
    _post(
        "email/verify", change_address, body=AddressProof, bearer=True, errors=(*_CODE, _TOO_MANY)
    ),
    _post(
        "close",
        close,
        body=Closing,
        answers={204: None},
        bearer=True,
        errors=(credentials.WRONG_PASSWORD, _TOO_MANY),
    ),
)
