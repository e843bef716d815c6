"""HTTP API: the sender name of order emails, and the address for replies."""

from typing import Annotated

import msgspec
from sqlalchemy.orm import Session

from services.accounts.bodies import Code
from services.accounts.email_sender import changes
from shared.bus.contract.events import Email
from shared.db.models import EmailSender
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route


class SenderSettings(msgspec.Struct, kw_only=True):
    """The sender name and the address for replies; ours where one is missing.

    Customers see `display_name` as `<display_name> via …`, before our own address. A `reply_to`
    other than your account's own address is set once you give the code that is mailed to it. A
    request that changes the name leaves a code for the same `reply_to` valid.
    """

    display_name: Annotated[str, msgspec.Meta(max_length=200, examples=["Kettle & Co"])] = ""
    reply_to: Annotated[Email, msgspec.Meta(examples=["help@kettle.example"])] | None = None


class SenderView(msgspec.Struct, kw_only=True):
    """The current settings; `awaits_code` is an address for replies that is not proved yet."""

    display_name: str
    reply_to: str | None
    awaits_code: str | None


class SenderProof(msgspec.Struct, kw_only=True):
    """The code that was mailed to the address for replies."""

    otp: Code


def show(session: Session, call: Call[None, None]) -> Answer:
    """Show the sender name and the address for replies."""
    found = session.get(EmailSender, call.caller, populate_existing=True)
    return Answer(
        200,
        SenderView(
            display_name=found.display_name if found else "",
            reply_to=(found.reply_to or None) if found else None,
            awaits_code=changes.awaited(session, call.caller),
        ),
    )


def replace(session: Session, call: Call[SenderSettings, None]) -> Answer | ApiError:
    """Update the sender settings; you get an email about the change."""
    body = call.body
    error = changes.put(session, call.caller, body.display_name, body.reply_to or "", call.address)
    return error or show(session, call)  # type: ignore[arg-type]


def prove(session: Session, call: Call[SenderProof, None]) -> Answer | ApiError:
    """Prove the address for replies by its code."""
    error = changes.prove(session, call.caller, call.body.otp, call.address)
    return error or show(session, call)  # type: ignore[arg-type]


_TOO_MANY = (429, "rate_limited", "Too many codes or guesses; `Retry-After` says how long.")

ROUTES = (
    Route(
        method="GET",
        path="/email-sender/",
        handler=show,
        summary="Show the sender settings of emails about your orders",
        answers={200: SenderView},
        bearer=True,
        tag="Emails",
    ),
    Route(
        method="PUT",
        path="/email-sender/",
        handler=replace,
        summary="Update the sender settings of emails about your orders",
        body=SenderSettings,
        answers={200: SenderView},
        errors=(
            (400, "invalid_display_name", "The name is refused; `error` says why."),
            _TOO_MANY,
        ),
        bearer=True,
        tag="Emails",
    ),
    Route(
        method="POST",
        path="/email-sender/verify/",
        handler=prove,
        summary="Prove the address for replies by its code",
        body=SenderProof,
        answers={200: SenderView},
        errors=(
            (400, "invalid_otp", "The code is wrong."),
            (400, "otp_expired", "The code has expired."),
            (400, "otp_locked", "Too many wrong tries."),
            _TOO_MANY,
        ),
        bearer=True,
        tag="Emails",
    ),
)
