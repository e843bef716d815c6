"""The HTTP side: a business submits its application and sees what became of it."""

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
from shared.db.models import Account, KycApplication
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route

# A sentence, or whatever structure the business keeps its contacts in.
Contact = Text | Annotated[dict[str, Any], msgspec.Meta(min_length=1, max_length=50)]


class Submission(msgspec.Struct, kw_only=True):
    """What a business says of itself."""

    business_registration_number: Line
    business_address: Text
    contact_person_details: Contact


class Application(msgspec.Struct, kw_only=True):
    """An application and what became of it.

    `incomplete`: we need to know more before we can decide, and `reason` says what; send it again.
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
    """Submit KYC. A business that was asked for more, rejected or revoked may submit again."""
    # Held, so that it is not closed meanwhile.
    account = session.get(Account, call.caller, with_for_update={"read": True})
    if account is None or account.closed_at is not None:
        raise ApiError(401, "not_signed_in", "This account no longer exists.")
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
        submitted_at=_after_the_others(account.id),
    )
    try:
        with session.begin_nested():
            session.add(application)
    except IntegrityError:  # another request of the same business was faster
        _refuse_another(session, account.id)
        raise ApiError(400, *_ALREADY["pending"]) from None
    fact = KycSubmitted(
        **of_account(account),
        application_id=application.id,
        business_registration_number=application.business_registration_number,
    )
    outbox.tell(session, fact, account.id, source=SOURCE)
    return Answer(201, _view(application))


def show(session: Session, call: Call[None, None]) -> Answer:
    """The newest application of the signed-in business."""
    application = _newest(session, call.caller)
    if application is None:
        raise ApiError(404, *_NONE)
    return Answer(200, _view(application))


def _refuse_another(session: Session, account_id: UUID) -> None:
    newest = _newest(session, account_id)
    if newest is not None and newest.status in _ALREADY:
        raise ApiError(400, *_ALREADY[newest.status])


def _after_the_others(account_id: UUID) -> ScalarSelect[datetime]:
    """When an application is submitted: later than all others of its account.

    The newest is the one that counts, and a clock may have gone back.
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
