"""The first request: example code, and a live view of what arrives."""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from services.portal.pages.requests import A_MICROSECOND, NOTES
from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import PageError, View

PATH = "/first-request"
EXAMPLES = Path(__file__).parents[3] / "examples"
LANGUAGES = {
    "curl and openssl": "send_order.sh",
    "Python": "send_order.py",
    "Node.js": "send_order.mjs",
    "PHP": "send_order.php",
    "Ruby": "send_order.rb",
    "Go": "send_order.go",
    "Java": "SendOrder.java",
}
DEVELOPMENT_URL = "http://127.0.0.1:8000"
"""The URL in the examples, which is replaced."""


def show(visit: Visit) -> Result:
    """Show the examples, and what was received since the page was first opened."""
    newest = _newest(visit)
    # The API's clock: the time of the newest request, so that any later one is new.
    after = visit.query.get("after", newest["received_at"] if newest else "")
    about = {"path": PATH, "snippets": snippets(visit.config.public_url.rstrip("/"))}
    return View("first_request.html", about | _state(visit, after, newest))


def state(visit: Visit) -> Result:
    """Return the live view, as the fragment that the page polls until an order is recorded."""
    about = _state(visit, visit.query.get("after", ""), _newest(visit))
    return View("first_request_state.html", about)


def _state(visit: Visit, after: str, newest: dict[str, Any] | None) -> dict[str, Any]:
    """Return the newest request since a time, preferably a recorded one; else the one before it.

    Args:
        visit: the request of the signed-in business.
        after: the time of the newest request when the page was opened; empty if there was none.
        newest: the newest request of all.
    """
    try:
        since = datetime.fromisoformat(after) + A_MICROSECOND if after else None
        newest_at = datetime.fromisoformat(newest["received_at"]) if newest else None
        is_new = newest_at is not None and (since is None or newest_at >= since)
    except (TypeError, ValueError, OverflowError):
        raise PageError(404, "There is no such page: that is no time.") from None
    about: dict[str, Any] = {"after": after, "request": None, "before": newest, "notes": NOTES}
    if newest and is_new:
        about |= {"request": newest, "before": None}
        if not _is_recorded(newest):
            received_from = since.isoformat() if since else ""
            accepted = visit.api.get(
                "/webhooks/log/", outcome="accepted", received_from=received_from
            )
            about["request"] = next(filter(_is_recorded, accepted["results"]), newest)
    return about


@cache
def snippets(url: str) -> dict[str, str]:
    """Return the files of `examples/` by language, with the URL of this API.

    Args:
        url: the API's base URL.
    """
    return {
        language: (EXAMPLES / file).read_text(encoding="utf-8").replace(DEVELOPMENT_URL, url)
        for language, file in LANGUAGES.items()
    }


def _is_recorded(request: Mapping[str, Any]) -> bool:
    # A shop's test or draft is accepted but not recorded.
    return request["outcome"] == "accepted" and not request["note"]


def _newest(visit: Visit) -> dict[str, Any] | None:
    found = visit.api.get("/webhooks/log/", limit="1")["results"]
    return found[0] if found else None


PAGES = (
    Page("GET", PATH, "business", show),
    Page("GET", f"{PATH}/state", "business", state, asks_by_itself=True),
)
