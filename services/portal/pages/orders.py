"""The business's orders: a list, and the story of one."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.portal.pages.requests import first_moment, older
from services.portal.web.page import Page, Visit
from shared.bus.contract.events import TrackingStatus
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

PATH = "/orders"
FILTERS = ("status", "order_number", "customer_email", "since", "until")
STATUSES = [status.value for status in TrackingStatus]


def index(visit: Visit) -> Result:
    """A page of them, the newest first."""
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    found, wrong = visit.listed(
        "/orders/",
        status=wanted["status"],
        order_number=wanted["order_number"],
        customer_email=wanted["customer_email"],
        created_from=first_moment(wanted["since"]),
        created_to=first_moment(wanted["until"], days=1),
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
    """One order, with all that happened to it."""
    order = visit.api.find(f"/orders/{uuid_of(visit.path['order_id'])}/")
    if order is None:
        raise PageError(
            404,
            "You have no order with this id. One that was just accepted takes a moment to be "
            "recorded: load the page anew.",
        )
    # An API of the version before says nothing of it, and leaves nothing out.
    is_cut = False in (order.get("history_is_complete"), order.get("emails_are_complete"))
    about = {"path": PATH, "order": order, "timeline": timeline(order), "is_cut": is_cut}
    return View("order.html", about)


def ask_end_links(visit: Visit) -> Question:
    """Say whose links end."""
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
    """End them."""
    order_id = uuid_of(visit.path["order_id"])
    visit.api.delete(f"/orders/{order_id}/customer-links/")
    return Redirect(f"{PATH}/{order_id}", "The links so far are ended. The new one is below.")


def timeline(order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What happened to an order, in the order of time: `at`, `what`, `more`, whether it `counts`.

    Args:
        order: as the API shows it.
    """
    told = [
        {"at": order["created_at"], "what": "Accepted", "more": "", "counts": True},
        {"at": order["recorded_at"], "what": "Recorded", "more": "", "counts": True},
    ]
    told += [
        {
            "at": entry["at"],
            "what": entry["tracking_status"],
            "more": entry["note"] if entry["applied"] else "too late to count",
            "counts": entry["applied"],
        }
        for entry in order["status_history"]
    ]
    told += [
        {
            "at": email["at"],
            "what": f"Email to {email['recipient']}: {email['state']}",
            "more": email["template"].replace("_", " "),
            "counts": email["state"] == "sent",
        }
        for email in order["emails"]
    ]
    # Not as texts: one of them has no fraction of a second.
    return sorted(told, key=lambda entry: datetime.fromisoformat(entry["at"]))


PAGES = (
    Page("GET", PATH, "business", index),
    Page("GET", f"{PATH}/{{order_id}}", "business", show),
    Page("POST", f"{PATH}/{{order_id}}/links", "business", end_links, asks=ask_end_links),
)
