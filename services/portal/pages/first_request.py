"""The first request: lines to paste, and a look-out for what comes."""

from functools import cache
from pathlib import Path

from services.portal.web.page import Page, Visit
from shared.web.mount import Result
from shared.web.results import View

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
"""What the examples send to where nothing else is said."""


def show(visit: Visit) -> Result:
    """Lines in each language, and whether something has come."""
    about = {
        "path": PATH,
        "snippets": snippets(visit.config.public_url.rstrip("/")),
        "request": _newest(visit),
    }
    return View("first_request.html", about)


def state(visit: Visit) -> Result:
    """Whether something has come, as a piece of the page, which asks again until it has."""
    return View("first_request_state.html", {"request": _newest(visit)})


@cache
def snippets(url: str) -> dict[str, str]:
    """The examples by language, as they stand in `examples/`, for this API.

    Args:
        url: of the API, without a prefix.
    """
    return {
        language: (EXAMPLES / file).read_text().replace(DEVELOPMENT_URL, url)
        for language, file in LANGUAGES.items()
    }


def _newest(visit: Visit) -> object:
    found = visit.api.get("/webhooks/log/", limit="1")["results"]
    return found[0] if found else None


PAGES = (
    Page("GET", PATH, "business", show),
    Page("GET", f"{PATH}/state", "business", state, asks_by_itself=True),
)
