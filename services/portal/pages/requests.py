"""The requests of the business's programs: what became of each, why, and what helps."""

from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import PageError, View

PATH = "/requests"
FILTERS = ("outcome", "code", "order_number", "event_type", "note", "since", "until")
A_MICROSECOND = timedelta(microseconds=1)
OURS = ("x-api-key", "standard-webhooks")
"""The schemes of a business's own programs; any other is a shop's."""
NOTES = {
    "no_change": "The shop's order has no state that a customer is told of: nothing was changed "
    "by it, but that an order which waited to be placed is recorded.",
    "not_placed": "The shop's order is a draft, unpaid, failed or cancelled: it is recorded, and "
    "its customer told, once it is placed.",
    "no_email_address": "The shop's order has no email address that can be mailed, so there is "
    "nobody to tell of it: it is not recorded. Of one that was recorded with an address, its new "
    "state is.",
    "old_order": "The shop's order was made more than a week before it came as a new one, so it is "
    "taken for an imported one: it is not recorded, and its customer is told nothing.",
    "topic_not_taken": "What the shop told is not about an order's making or changes: nothing is "
    "recorded of it. Leave its topic out of the shop's webhooks.",
    "test": "The shop's test arrived, and its signature is right: nothing is recorded of it.",
    "ping": "The shop asked whether we are here: nothing is recorded of it.",
}
"""Why nothing is recorded of a shop's delivery that was in order, by the API's `note`."""


def index(visit: Visit) -> Result:
    """A page of them, the newest first; the first page looks out for newer ones by itself."""
    return _listed(visit, "requests.html")


def newest(visit: Visit) -> Result:
    """The list alone, as a piece of its page, which asks again."""
    return _listed(visit, "requests_list.html")


def _listed(visit: Visit, template: str) -> View:
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    query = {
        **{name: wanted[name] for name in FILTERS[:-2]},
        "received_from": first_moment(wanted["since"]),
        "received_to": first_moment(wanted["until"], days=1),
        "cursor": visit.query.get("cursor", ""),
    }
    found, wrong = visit.listed("/webhooks/log/", **query)
    given = {name: value for name, value in wanted.items() if value}
    about = {
        "path": PATH,
        "wanted": wanted,
        "wrong": wrong,
        "notes": tuple(NOTES),
        "requests": found["results"],
        "is_later": "cursor" in visit.query,
        "next": older(wanted, found["next"]),
        "again": "" if wrong or query["cursor"] else f"{PATH}/newest?{urlencode(given)}",
    }
    return View(template, about, 400 if wrong else 200)


def show(visit: Visit) -> Result:
    """What came in one moment: a request, with cause and cure, and its receipt."""
    found = of_moment(visit, visit.path["received_at"])
    codes = {each["code"]: each for each in visit.api.get("/error-codes/")["results"]}
    requests = [
        (
            request,
            codes.get(request["code"]),
            _receipt(visit, request["event_id"]) if request["outcome"] == "accepted" else "",
            # What has a note may be in no book, though it has a number.
            not request["note"] or visit.api.find(f"/orders/{request['order_id']}/") is not None,
        )
        for request in found
    ]
    return View("request.html", {"path": PATH, "requests": requests, "notes": NOTES, "ours": OURS})


def of_moment(visit: Visit, received_at: str) -> list[dict[str, Any]]:
    """The requests that came in one moment.

    Args:
        visit: whose.
        received_at: the moment, as the API has it.

    Raises:
        PageError: 404, when there is none.
    """
    try:
        at = datetime.fromisoformat(received_at)
        until = (at + A_MICROSECOND).isoformat()
    except (ValueError, OverflowError):
        raise PageError(404, "There is no such page: that is no time.") from None
    if at.tzinfo is None:
        raise PageError(404, "There is no such page: that time has no zone.")
    found = visit.api.get("/webhooks/log/", received_from=at.isoformat(), received_to=until)
    if not found["results"]:
        raise PageError(404, "You have no request of that time in the request log.")
    results: list[dict[str, Any]] = found["results"]
    return results


def first_moment(day: str, days: int = 0) -> str:
    """The first moment of a day of a form, in UTC, as the API takes it; empty for what is none.

    Args:
        day: as a date field has it (HTML, 4.10.5.1.7).
        days: so many days later.
    """
    try:
        return f"{date.fromisoformat(day) + timedelta(days=days)}T00:00:00Z"
    except (ValueError, OverflowError):
        return ""


def older(wanted: dict[str, str], cursor: str | None) -> str:
    """The query string of the next page of a list; empty where this is the last.

    Args:
        wanted: the filters.
        cursor: of the API.
    """
    given = {name: value for name, value in wanted.items() if value}
    return urlencode(given | {"cursor": cursor}) if cursor else ""


def _receipt(visit: Visit, event_id: str) -> str:
    found = visit.api.find(f"/webhooks/receipts/{event_id}/")
    return str(found["receipt"]) if found else ""


PAGES = (
    Page("GET", PATH, "business", index),
    Page("GET", f"{PATH}/newest", "business", newest, asks_by_itself=True),
    Page("GET", f"{PATH}/{{received_at}}", "business", show),
)
