"""Operators' notes on an application: not shown to the business, and immutable."""

from sqlalchemy.orm import Session

from services.ops.commands import kyc_applications, kyc_notes
from services.ops.commands.kyc_applications import Application
from services.ops.console.pages.kyc.desk import address_of, filter_of
from services.ops.console.web.page import Page, Visit
from services.ops.users.rights import Right
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect


def ask(session: Session, visit: Visit) -> Question:
    """Ask before the note is kept, showing it."""
    application, note = _noted(session, visit)
    return Question(
        f"Keep this note on {application.company_name}?",
        "Keep the note",
        _listed(visit, application),
        facts={
            "Registration number": application.business_registration_number,
            "Its application is": application.status,
            "By": visit.user.name,
        },
        more="Operators alone see it, with your name. It can be neither changed nor removed.",
        body=note,
    )


def keep(session: Session, visit: Visit) -> Result:
    """Store the note."""
    application, note = _noted(session, visit)
    kyc_notes.add(session, visit.actor, application, note)
    return Redirect(_listed(visit, application), "The note is kept.")


def _noted(session: Session, visit: Visit) -> tuple[Application, str]:
    application = kyc_applications.newest(session, uuid_of(visit.path["account_id"]))
    if application is None:
        raise PageError(404, "This business has not applied.")
    if str(application.id) != visit.field("application_id"):
        raise PageError(409, "The business has sent another application since: look at that one.")
    try:
        return application, kyc_notes.checked(visit.field("note"))
    except kyc_notes.InvalidNoteError as error:
        raise PageError(400, str(error)) from None


def _listed(visit: Visit, application: Application) -> str:
    """Return the address of the list that the form came from."""
    listed = {name: visit.field(name) for name in ("status", "words", "sort", "after")}
    return address_of(*filter_of(listed | {"status": listed["status"] or application.status}))


PAGES = (Page("POST", "/kyc/{account_id}/notes", Right.KYC, keep, asks=ask, plain=[Right.KYC]),)
