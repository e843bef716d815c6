"""HTTP API: submit a KYC application and see its state."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.kyc import SOURCE
from shared.bus import outbox
from shared.bus.contract.events import KycSubmitted, Line, Text, of_account
from shared.db.models import KycApplication
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.http.standing import held

# A text, or an object in the business's own structure.
Contact = Text | Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=50)]


class Submission(msgspec.Struct, kw_only=True):
    """A KYC application."""

    business_registration_number: Line
    business_address: Text
    contact_person_details: Contact


class Application(msgspec.Struct, kw_only=True):
    """An application and its state.

    `incomplete`: more information is needed, which `reason` describes; submit it again.
    """

    id: UUID
    business_registration_number: str
    business_address: str
    contact_person_details: str | dict[str, Any]
    status: str
    reason: str
    submitted_at: datetime
    decided_at: datetime | None


_ALREADY = {
    "pending": ("kyc_already_pending", "Your KYC is being looked at already."),
    "approved": ("kyc_already_approved", "Your KYC is approved already."),
}
_NONE = ("kyc_not_found", "You have not submitted KYC yet: POST it to this address.")


def submit(session: Session, call: Call[Submission, None]) -> Answer:
    """Submit KYC; again after a question, a rejection or a revocation."""
    account = held(session, call.caller)
    _refuse_another(session, account.id)
    body = call.body
    number = body.business_registration_number.strip()
    if not number:
        raise ApiError(400, "invalid_body", "business_registration_number is blank.")
    contact = body.contact_person_details
    if b"\\u0000" in msgspec.json.encode(contact):
        raise ApiError(400, "invalid_body", "contact_person_details holds a NUL character.")
    application = KycApplication(
        account_id=account.id,
        business_registration_number=number,
        business_address=body.business_address,
        contact_person_details=msgspec.json.encode(contact).decode(),
        status="pending",
        submitted_at=_next_time(account.id),
    )
    try:
        with session.begin_nested():
            session.add(application)
    except IntegrityError:  # a concurrent request of the same business
        _refuse_another(session, account.id)
        raise ApiError(400, *_ALREADY["pending"]) from None
    fact = KycSubmitted(
        **of_account(account),
        application_id=application.id,
        business_registration_number=application.business_registration_number,
    )
    outbox.add_fact(session, fact, account.id, source=SOURCE)
    return Answer(201, _view(application))


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the newest application of the signed-in business."""
    application = _newest(session, call.caller)
    if application is None:
        raise ApiError(404, *_NONE)
    return Answer(200, _view(application))


def _refuse_another(session: Session, account_id: UUID) -> None:
    newest = _newest(session, account_id)
    if newest is not None and newest.status in _ALREADY:
        raise ApiError(400, *_ALREADY[newest.status])


def _next_time(account_id: UUID) -> ScalarSelect[datetime]:
    """Return a submission time after all earlier ones of the account.

    The newest application counts, and the clock may have been set back.
    """
    last = func.max(KycApplication.submitted_at)
    return (
        select(func.greatest(func.now(), last + timedelta(microseconds=1)))
        .where(KycApplication.account_id == account_id)
        .scalar_subquery()
    )


def _newest(session: Session, account_id: UUID) -> KycApplication | None:
    return session.scalar(
        select(KycApplication)
        .where(KycApplication.account_id == account_id)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
    )


def _view(application: KycApplication) -> Application:
    return Application(
        id=application.id,
        business_registration_number=application.business_registration_number,
        business_address=application.business_address,
        contact_person_details=msgspec.json.decode(application.contact_person_details),
        status=application.status,
        reason=application.reason,
        submitted_at=application.submitted_at,
        decided_at=application.decided_at,
    )


ROUTES = (
    Route(
        method="POST",
        path="/kyc/",
        handler=submit,
        summary="Submit KYC",
        body=Submission,
        answers={201: Application},
        errors=tuple((400, *error) for error in _ALREADY.values()),
        bearer=True,
        tag="KYC",
    ),
    Route(
        method="GET",
        path="/kyc/",
        handler=show,
        summary="Your newest application",
        answers={200: Application},
        errors=((404, *_NONE),),
        bearer=True,
        tag="KYC",
    ),
)
