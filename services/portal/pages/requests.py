"""Request log of the business: the outcome of each request, its cause and a remedy."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from services.portal.web.page import Page, Visit
from shared.web.forms import beginning
from shared.web.mount import Result
from shared.web.results import PageError, View

PATH = "/requests"
FILTERS = ("outcome", "code", "order_number", "event_type", "note", "since", "until", "zone")
SEARCHED = ("code", "order_number", "event_type", "note")
A_MICROSECOND = timedelta(microseconds=1)
OURS = ("x-api-key", "standard-webhooks")
"""Signature schemes of the business's own programs; the others are shop platforms'."""
NOTES = {
    "no_change": "The shop's order has no state that customers are notified of. Nothing was "
    "changed, except that an order which waited to be placed is recorded.",
    "not_placed": "The shop's order is a draft, unpaid, failed or cancelled. It is recorded, and "
    "its customer notified, once it is placed.",
    "no_email_address": "The shop's order has no email address that can be mailed, so it is not "
    "recorded. If it was recorded before with an address, its new state is.",
    "old_order": "The shop's order was made more than a week before it was sent as a new one, so "
    "it is taken for an imported one: it is not recorded, and its customer gets no email.",
    "order_gone": "The shop's order was deleted for good before the shop sent it, so the "
    "delivery has no content and nothing is recorded. What was recorded of the order before stays.",
    "privacy_request": "The shop's platform passed on a request to see or erase a person's data. "
    "It is not carried out by this: write to the operator of Order Fellow, with the customer's "
    "address.",
    "topic_not_taken": "The delivery is not about an order's creation or changes, so nothing is "
    "recorded. Leave its topic out of the shop's webhooks.",
    "test": "The shop's test arrived, and its signature is right. Nothing is recorded.",
    "ping": "The shop checked that this address answers. Nothing is recorded.",
}
"""Why an accepted delivery of a shop is not recorded, by the API's `note`."""


def index(visit: Visit) -> Result:
    """Show a page of requests, newest first; the first page polls for newer ones."""
    return _listed(visit, "requests.html")


def newest(visit: Visit) -> Result:
    """Return the list alone, as the fragment that the page polls."""
    return _listed(visit, "requests_list.html")


def _listed(visit: Visit, template: str) -> View:
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    query = {
        **{name: wanted[name] for name in FILTERS[:-3]},
        "received_from": first_moment(wanted["since"], wanted["zone"]),
        "received_to": first_moment(wanted["until"], wanted["zone"], days=1),
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
        # There is no index for these: every poll scans the log.
        "searched": any(wanted[name] for name in SEARCHED),
        "is_later": "cursor" in visit.query,
        "next": older(wanted, found["next"]),
        "again": "" if wrong or query["cursor"] else f"{PATH}/newest?{urlencode(given)}",
    }
    return View(template, about, 400 if wrong else 200)


def show(visit: Visit) -> Result:
    """Show the requests of a moment, mostly one, with cause, remedy and receipt."""
    found = of_moment(visit, visit.path["received_at"])
    codes = {each["code"]: each for each in visit.api.get("/error-codes/")["results"]}
    requests = [
        (
            request,
            codes.get(request["code"]),
            _receipt(visit, request["event_id"]) if request["outcome"] == "accepted" else "",
            # A request with a note has an order id, but the order may not be recorded.
            not request["note"] or visit.api.find(f"/orders/{request['order_id']}/") is not None,
        )
        for request in found
    ]
    return View("request.html", {"path": PATH, "requests": requests, "notes": NOTES, "ours": OURS})


def of_moment(visit: Visit, received_at: str) -> list[dict[str, Any]]:
    """Return the requests that were received in one microsecond.

    Args:
        visit: the request of the signed-in business.
        received_at: the time in the API's format.

    Raises:
        PageError: 404 if there is none.
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


def first_moment(day: str, zone: str, days: int = 0) -> str:
    """Return `beginning` in the API's format; empty for no day."""
    found = beginning(day, zone, days)
    return found.isoformat() if found else ""


def older(wanted: dict[str, str], cursor: str | None) -> str:
    """Return the query string of a list's next page; empty on the last one.

    Args:
        wanted: the filters.
        cursor: the API's cursor; None on the last page.
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
