"""How customers see a business: the name that emails bear, and the address that answers go to."""

from typing import Any

from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/emails/sender"
OURS = "ours"


def show(visit: Visit) -> Result:
    """Both of them; and the form for a code that was mailed."""
    return _page(visit)


def ask(visit: Visit) -> Question:
    """Say what customers will see."""
    name, address = _given(visit)
    return Question(
        "Change how your customers see you?",
        "Save",
        PATH,
        {"Name": name or OURS, "Answers go to": address or OURS},
        more="It holds from the next email on. An address that is neither your account's nor "
        "answered before is taken once you type in the code that we mail to it.",
    )


def put(visit: Visit) -> Result:
    """Choose."""
    name, address = _given(visit)
    try:
        kept = visit.api.put("/email-sender/", {"display_name": name, "reply_to": address or None})
    except Refused as refused:
        return _page(visit, refused)
    awaited = kept["awaits_code"]
    said = f"A code is on its way to {awaited}: type it in below." if awaited else "It is kept."
    return Redirect(PATH, said)


def ask_code(visit: Visit) -> Question | View:
    """Name the address."""
    awaited = visit.api.get("/email-sender/")["awaits_code"]
    if awaited is None:
        return _page(visit)
    facts = {"Answers go to": awaited}
    return Question("Have your customers' answers go there?", "Have them go there", PATH, facts)


def prove(visit: Visit) -> Result:
    """Take the address, by its code."""
    try:
        visit.api.post("/email-sender/verify/", {"otp": visit.field("code")})
    except Refused as refused:
        return _page(visit, wrong_code=refused)
    return Redirect(PATH, "Answers go there from now on.")


def _given(visit: Visit) -> tuple[str, str]:
    return visit.field("display_name"), visit.field("reply_to")


def _page(
    visit: Visit,
    wrong: Refused | None = None,
    wrong_code: Refused | None = None,
) -> View:
    chosen: dict[str, Any] = visit.api.get("/email-sender/")
    about = {
        "path": PATH,
        "chosen": chosen,
        "wrong": wrong,
        "wrong_code": wrong_code,
    }
    refused = wrong or wrong_code
    return View("sender.html", about, refused.status if refused else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", put, asks=ask),
    Page("POST", f"{PATH}/code", "business", prove, asks=ask_code),
)
