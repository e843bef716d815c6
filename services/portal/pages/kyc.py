"""KYC: the newest application and its state, and the form for another one."""

import json
from typing import Any

from services.portal.pages.secret import has_secret
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/kyc"
FIELDS = ("business_registration_number", "business_address", "contact_person_details")
MAY_FOLLOW = ("incomplete", "rejected", "revoked")
"""States of the newest application in which the API takes another one."""


def show(visit: Visit) -> Result:
    """Show the newest application, and the form where another one can be sent."""
    return _page(visit)


def ask(visit: Visit) -> Question | View:
    """Show what is about to be sent."""
    if not _can_apply(visit.api.find("/kyc/")):
        return _page(visit, "This was not sent: the application below is already with us.", 409)
    given = _given(visit)
    if not all(given.values()):
        return _page(visit, "All three are needed.", 400)
    return Question(
        "Send this application?",
        "Send the application",
        PATH,
        {
            "Business": visit.business.company_name,
            "Registration number": given["business_registration_number"],
            "Address": given["business_address"],
            "Contact person": given["contact_person_details"],
        },
        more="It cannot be changed while we look at it. You get an email when it is decided.",
    )


def apply(visit: Visit) -> Result:
    """Send the application."""
    try:
        visit.api.post("/kyc/", _given(visit))
    except Refused as refused:
        return _page(visit, str(refused), 400)
    return Redirect(PATH, "Your application is sent. You get an email when it is decided.")


def _given(visit: Visit) -> dict[str, str]:
    return {name: visit.lines(name).strip() for name in FIELDS}


def _can_apply(newest: dict[str, Any] | None) -> bool:
    return newest is None or newest["status"] in MAY_FOLLOW


def _prefilled(newest: dict[str, Any] | None) -> dict[str, str]:
    """Return the form's initial values: those of the application before, which is amended."""
    if newest is None:
        return dict.fromkeys(FIELDS, "")
    contact = newest["contact_person_details"]
    if isinstance(contact, dict):
        contact = "\n".join(f"{name}: {_as_text(value)}" for name, value in contact.items())
    return {name: newest[name] for name in FIELDS} | {"contact_person_details": contact}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _page(visit: Visit, wrong: str = "", status: int = 200) -> View:
    newest = visit.api.find("/kyc/")
    about = {
        "path": PATH,
        "application": newest,
        "given": _prefilled(newest),
        "wrong": wrong,
        "secret_is_active": has_secret(visit),
        "can_apply": _can_apply(newest),
    }
    return View("kyc.html", about, status)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", apply, asks=ask),
)
