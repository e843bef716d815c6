"""KYC: an application, what became of it, and another one."""

import json
from typing import Any

from services.portal.pages.secret import has_secret
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/kyc"
FIELDS = ("business_registration_number", "business_address", "contact_person_details")


def show(visit: Visit) -> Result:
    """The newest application; the form where one can be sent."""
    return _shown(visit)


def ask(visit: Visit) -> Question | View:
    """What is about to be sent."""
    given = _given(visit)
    if not all(given.values()):
        return _shown(visit, "All three are needed.")
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
    """Send it."""
    given = _given(visit)
    try:
        visit.api.post("/kyc/", given)
    except Refused as refused:
        return _shown(visit, str(refused))
    return Redirect(PATH, "Your application is sent. You get an email when it is decided.")


def _given(visit: Visit) -> dict[str, str]:
    return {name: visit.lines(name).strip() for name in FIELDS}


def _to_amend(found: dict[str, Any] | None) -> dict[str, str]:
    """What is in the form to begin with: of an application that is sent back, what it said."""
    if found is None or found["status"] != "incomplete":
        return dict.fromkeys(FIELDS, "")
    contact = found["contact_person_details"]
    if isinstance(contact, dict):
        contact = "\n".join(f"{name}: {_words(value)}" for name, value in contact.items())
    return {name: found[name] for name in FIELDS} | {"contact_person_details": contact}


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(visit: Visit, wrong: str = "") -> View:
    found = visit.api.find("/kyc/")
    about = {
        "path": PATH,
        "application": found,
        "given": _to_amend(found),
        "wrong": wrong,
        "secret_is_active": has_secret(visit),
        "can_apply": found is None or found["status"] in ("incomplete", "rejected", "revoked"),
    }
    return View("kyc.html", about, 400 if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", apply, asks=ask),
)
