"""The first page: the remaining steps until the business is live, then its figures."""

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
        title: the task.
        is_done: whether it is done.
        text: its state, if there is more to say.
        to: the page where it is done; empty if it is not the business's task.
        link: the text of the link to that page.
        is_next: whether it is the first open step.
    """

    title: str
    is_done: bool
    text: str = ""
    to: str = ""
    link: str = ""
    is_next: bool = False


def show(visit: Visit) -> Result:
    """Show the steps, and the figures of the last hour once all are done."""
    kyc = visit.api.find("/kyc/")
    orders = visit.api.get("/orders/", limit="1")["results"]
    tests = orders or visit.api.get("/orders/", limit="1", mode="test")["results"]
    steps = in_order(_steps(kyc, has_tested=bool(tests), is_live=bool(orders)))
    about = {"path": "/", "steps": steps, "is_live": all(step.is_done for step in steps)}
    if not about["is_live"]:
        return View("overview.html", about)
    about |= {
        "health": visit.api.get("/webhooks/health/"),
        "can_sign": has_secret(visit) or bool(others(visit).in_words),
        "newest": visit.api.find(f"/orders/{orders[0]['id']}/"),
    }
    return View("overview.html", about)


def in_order(steps: Iterator[Step]) -> list[Step]:
    """Return the steps, with the first open one marked as next."""
    found = list(steps)
    for place, step in enumerate(found):
        if not step.is_done:
            found[place] = replace(step, is_next=True)
            break
    return found


_APPLY = {"incomplete": "Amend it, and send it again"}


def _steps(kyc: Mapping[str, Any] | None, *, has_tested: bool, is_live: bool) -> Iterator[Step]:
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
        "Try it with a test order",
        has_tested,
        ""
        if has_tested
        else "It goes the whole way, is counted nowhere, and is mailed to you alone.",
        "/orders?mode=test",
        "Try it",
    )
    yield Step(
        "Send your first order",
        is_live,
        ""
        if is_live
        else "By a program of yours, by your shop, or by a few lines that you paste. "
        "It is recorded about a second after it was accepted.",
        "/first-request",
        "Show me how",
    )


PAGES = (Page("GET", "/", "business", show),)
