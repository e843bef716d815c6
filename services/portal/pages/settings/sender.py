"""How customers see a business: the sender name in emails, and the address for replies."""

from typing import Any

from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/emails/sender"
OURS = "ours"
NO_CODE = "No code is awaited any more: it was used, or another address was chosen."


def show(visit: Visit) -> Result:
    """Show both, and the form for a mailed code."""
    return _page(visit)


def ask(visit: Visit) -> Question:
    """Show what customers will see."""
    chosen = visit.api.get("/email-sender/")
    name, address = _wanted(visit, chosen)
    now, awaited = chosen["reply_to"] or OURS, chosen["awaits_code"]
    more = (
        "It holds from the next email on. An address that is neither your account's nor "
        "answered before is taken once you type in the code that we mail to it."
    )
    if awaited and address == awaited:
        replies = f"{now}; {awaited} once you type in its code"
    else:
        replies = address or OURS
        if awaited:
            more += f" The code that we mailed to {awaited} stops working."
    facts = {"Name": name or OURS, "Answers go to": replies}
    return Question("Change how your customers see you?", "Save", PATH, facts, more=more)


def put(visit: Visit) -> Result:
    """Save both."""
    name, address = _wanted(visit, visit.api.get("/email-sender/"))
    try:
        kept = visit.api.put("/email-sender/", {"display_name": name, "reply_to": address or None})
    except Refused as refused:
        return _page(visit, refused)
    awaited = kept["awaits_code"]
    note = f"A code is on its way to {awaited}: type it in below." if awaited else "It is saved."
    return Redirect(PATH, note)


def ask_code(visit: Visit) -> Question | View:
    """Show the address that the code proves."""
    awaited = visit.api.get("/email-sender/")["awaits_code"]
    if awaited is None:
        return _page(visit, wrong_code=NO_CODE, status=409)
    facts = {"Answers go to": awaited}
    return Question("Have your customers' answers go there?", "Have them go there", PATH, facts)


def prove(visit: Visit) -> Result:
    """Take the address, by its code."""
    try:
        visit.api.post("/email-sender/verify/", {"otp": visit.field("code")})
    except Refused as refused:
        return _page(visit, wrong_code=str(refused), status=refused.status)
    return Redirect(PATH, "Answers go there from now on.")


def _wanted(visit: Visit, chosen: dict[str, Any]) -> tuple[str, str]:
    """Return the name and the address that the form asks for.

    An untouched address is the one that awaits its code, if any: else a corrected name would
    discard that code.
    """
    return (
        visit.changed("display_name", chosen["display_name"]),
        visit.changed("reply_to", chosen["awaits_code"] or chosen["reply_to"] or ""),
    )


def _page(
    visit: Visit, refused: Refused | None = None, wrong_code: str = "", status: int = 200
) -> View:
    about = {
        "path": PATH,
        "chosen": visit.api.get("/email-sender/"),
        "wrong": wrong_code or refused,
        "wrong_sender": refused,
        "wrong_code": wrong_code,
    }
    return View("sender.html", about, refused.status if refused else status)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", put, asks=ask),
    Page("POST", f"{PATH}/code", "business", prove, asks=ask_code),
)
