"""Orders of the business: the list, and one order with its timeline."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.portal.pages.requests import first_moment, older
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.bus.contract.events import TrackingStatus
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/orders"
TESTS = f"{PATH}?mode=test"
FILTERS = ("mode", "status", "order_number", "customer_email", "since", "until", "zone")
STATUSES = [status.value for status in TrackingStatus]


def index(visit: Visit) -> Result:
    """Show a page of orders, newest first."""
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    found, wrong = visit.listed(
        "/orders/",
        mode=wanted["mode"],
        status=wanted["status"],
        order_number=wanted["order_number"],
        customer_email=wanted["customer_email"],
        created_from=first_moment(wanted["since"], wanted["zone"]),
        created_to=first_moment(wanted["until"], wanted["zone"], days=1),
        cursor=visit.query.get("cursor", ""),
    )
    about = {
        "path": PATH,
        "wanted": wanted,
        "statuses": STATUSES,
        "wrong": wrong,
        "orders": found["results"],
        "is_later": "cursor" in visit.query,
        "next": older(wanted, found["next"]),
    }
    return View("orders.html", about, 400 if wrong else 200)


def show(visit: Visit) -> Result:
    """Show an order and its timeline."""
    order = visit.api.find(f"/orders/{uuid_of(visit.path['order_id'])}/")
    if order is None:
        raise PageError(
            404,
            "You have no order with this id. One that was just accepted takes a moment to be "
            "recorded: load the page anew.",
        )
    # An API of the previous version has neither field, and no limit.
    is_cut = False in (order.get("history_is_complete"), order.get("emails_are_complete"))
    about = {"path": PATH, "order": order, "timeline": timeline(order), "is_cut": is_cut}
    return View("order.html", about)


def ask_test(visit: Visit) -> Question:
    """Explain what a test order does."""
    return Question(
        "Have a test order made?",
        "Make a test order",
        TESTS,
        {"Business": visit.business.company_name, "Mailed to": visit.business.email},
        more="It goes the way that an order of yours takes: it is recorded, apart from the others, "
        "and its email comes to you.",
    )


def make_test(visit: Visit) -> Result:
    """Have a test order made."""
    try:
        made = visit.api.post("/webhooks/test-order/")
    except Refused as refused:
        return Redirect(TESTS, str(refused))
    return Redirect(
        TESTS,
        f"A test order is on its way, and its email to {made['mailed_to']}. It is in this list in "
        "a moment: load the page anew.",
    )


def ask_clear(visit: Visit) -> Question:
    """Show what is removed."""
    return Question(
        "Remove your test orders?",
        "Remove the test orders",
        TESTS,
        {"Business": visit.business.company_name, "Removed": "test orders, and no others"},
        is_danger=True,
    )


def clear(visit: Visit) -> Result:
    """Remove up to 10,000 test orders."""
    cleared = visit.api.delete("/orders/test/")
    more = " Not all is removed yet: remove the rest in the same way." if cleared["more"] else ""
    return Redirect(TESTS, f"Removed: {cleared['orders']:,} test orders.{more}")


def ask_end_links(visit: Visit) -> Question:
    """Show the order whose links end."""
    order_id = uuid_of(visit.path["order_id"])
    order = visit.api.get(f"/orders/{order_id}/")
    return Question(
        "End the links of every email about this order so far?",
        "End these links",
        f"{PATH}/{order_id}",
        {"Order": order["order_number"] or str(order_id), "Items": order["item_summary"]},
        more="Whoever has one, its customer too, sees nothing by it any more. The next email about "
        "the order has a new one, and so has this order's page for you to pass on.",
        is_danger=True,
    )


def end_links(visit: Visit) -> Result:
    """End the customer links of an order."""
    order_id = uuid_of(visit.path["order_id"])
    visit.api.delete(f"/orders/{order_id}/customer-links/")
    return Redirect(f"{PATH}/{order_id}", "The links so far are ended. The new one is below.")


def timeline(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the events of an order by time, with the keys `at`, `what`, `more` and `counts`.

    Args:
        order: the order in the API's format.
    """
    events = [
        {"at": order["created_at"], "what": "Accepted", "more": "", "counts": True},
        {"at": order["recorded_at"], "what": "Recorded", "more": "", "counts": True},
    ]
    events += [
        {
            "at": entry["at"],
            "what": entry["tracking_status"],
            "more": entry["note"] if entry["applied"] else "too late to count",
            "counts": entry["applied"],
        }
        for entry in order["status_history"]
    ]
    events += [
        {
            "at": email["at"],
            "what": f"Email to {email['recipient']}: {email['state']}",
            "more": email["template"].replace("_", " "),
            "counts": email["state"] == "sent",
        }
        for email in order["emails"]
    ]
    # Not sorted as texts: some have no fraction of a second.
    return sorted(events, key=lambda entry: datetime.fromisoformat(entry["at"]))


PAGES = (
    Page("GET", PATH, "business", index),
    Page("POST", f"{PATH}/tests", "business", make_test, asks=ask_test),
    Page("POST", f"{PATH}/tests/clear", "business", clear, asks=ask_clear),
    Page("GET", f"{PATH}/{{order_id}}", "business", show),
    Page("POST", f"{PATH}/{{order_id}}/links", "business", end_links, asks=ask_end_links),
)
