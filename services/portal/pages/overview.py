"""The first page: what is still to do until the business is live, and then how it is doing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.portal.pages.secret import has_secret, others
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import View


@dataclass(frozen=True, slots=True)
class Step:
    """A step on the way to the first order.

    Attributes:
        title: what is to be done.
        is_done: whether it is.
        text: how it stands, where there is something to say.
        to: the page where it is done; empty where it is not the business's to do.
        link: what leads there.
        is_next: whether it is the first that is not done.
    """

    title: str
    is_done: bool
    text: str = ""
    to: str = ""
    link: str = ""
    is_next: bool = False


def show(visit: Visit) -> Result:
    """The steps; for who has taken them all, the figures of the last hour too."""
    kyc = visit.api.find("/kyc/")
    requests = visit.api.get("/webhooks/log/", limit="1")["results"]
    orders = visit.api.get("/orders/", limit="1")["results"]
    steps = in_order(_steps(kyc, bool(requests or orders), bool(orders)))
    about = {"path": "/", "steps": steps, "is_live": all(step.is_done for step in steps)}
    if not about["is_live"]:
        return View("overview.html", about)
    newest = visit.api.find(f"/orders/{orders[0]['id']}/")
    about |= {
        "health": visit.api.get("/webhooks/health/"),
        "can_sign": has_secret(visit) or bool(others(visit).in_words),
        "newest": newest,
    }
    return View("overview.html", about)


def in_order(steps: Iterator[Step]) -> list[Step]:
    """The steps, the first that is not done marked as the next one."""
    found = list(steps)
    for place, step in enumerate(found):
        if not step.is_done:
            found[place] = replace(step, is_next=True)
            break
    return found


_APPLY = {"incomplete": "Amend it, and send it again"}


def _steps(kyc: Mapping[str, Any] | None, has_sent: bool, has_orders: bool) -> Iterator[Step]:
    status = kyc["status"] if kyc else "none"
    reason = f" {kyc['reason']}" if kyc and kyc["reason"] else ""
    yield Step("Prove your email address", True)
    refused = {
        "incomplete": f"We need to know more before we can decide.{reason}",
        "rejected": f"Your application was rejected.{reason}",
        "revoked": f"Your approval was taken back.{reason}",
    }
    yield Step(
        "Tell us about your business (KYC)",
        status in ("pending", "approved"),
        refused.get(status, ""),
        "/kyc",
        _APPLY.get(status, "Apply again" if status in refused else "Apply"),
    )
    waits = "We are looking at what you have sent. You get an email when it is decided."
    yield Step("We approve it", status == "approved", waits if status == "pending" else "")
    yield Step(
        "Send a first request",
        has_sent,
        "" if has_sent else "By a program of yours, or by a few lines that you paste.",
        "/first-request",
        "Show me how",
    )
    yield Step(
        "Your first order is recorded",
        has_orders,
        "" if has_orders else "It takes about a second.",
        "/requests",
        "Look at your requests",
    )


PAGES = (Page("GET", "/", "business", show),)
