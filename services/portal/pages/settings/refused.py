"""Suppressed addresses: unsubscribed customers, and addresses that refused an email for good."""

from services.portal.pages.requests import older
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import Question, Redirect, View

PATH = "/emails/refused"
CAUSES = {"refused": "refused for good", "unsubscribed": "has left"}


def index(visit: Visit) -> Result:
    """Show a page of suppressed addresses, newest first."""
    cause = visit.query.get("cause", "")
    wanted = {"cause": cause if cause in CAUSES else ""}
    cursor = visit.query.get("cursor", "")
    found = visit.api.get("/suppressions/", cause=wanted["cause"], cursor=cursor)
    about = {
        "path": PATH,
        "wanted": wanted,
        "causes": CAUSES,
        "listed": found["results"],
        "is_later": "cursor" in visit.query,
        "next": older(wanted, found["next"]),
    }
    return View("refused.html", about)


def ask_lift(visit: Visit) -> Question:
    """Show the address."""
    return Question(
        "Mail this address again?",
        "Mail it again",
        PATH,
        {"Address": visit.field("address") or "not known any more"},
        more="The mail server has refused it for good. When it refuses it again, it is back in the "
        "list, and too many such emails harm the delivery of all others.",
    )


def lift(visit: Visit) -> Result:
    """Lift the suppression of a refused address."""
    try:
        visit.api.delete(f"/suppressions/{uuid_of(visit.path['suppression_id'])}/")
    except Refused as refused:
        return Redirect(PATH, str(refused))
    return Redirect(PATH, "The address is mailed again from the next email on.")


PAGES = (
    Page("GET", PATH, "business", index),
    Page("POST", f"{PATH}/{{suppression_id}}/lift", "business", lift, asks=ask_lift),
)
