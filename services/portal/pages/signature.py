"""Check of a request's signature; nothing is recorded."""

from collections.abc import Mapping
from typing import Any

from services.portal.pages.requests import of_moment
from services.portal.web.api import Refused
from services.portal.web.page import Page, Visit
from shared.web.forms import MAX_LARGE_BYTES
from shared.web.mount import Result
from shared.web.results import View

PATH = "/signature"


HEADERS = {
    "x-api-key": "X-API-Key: \nX-Webhook-Signature: ",
    "standard-webhooks": "webhook-id: \nwebhook-timestamp: \nwebhook-signature: ",
}
"""Names of the signature headers, by the schemes of the request log."""


def show(visit: Visit) -> Result:
    """Show the form, prefilled with the header names of a logged request if one is named."""
    of = _named(visit, visit.query.get("of", ""))
    return _page(HEADERS.get(of["scheme"], "") if of else "", "", of=of)


def verify(visit: Visit) -> Result:
    """Show what the webhook would answer, and why."""
    headers, body = visit.lines("headers"), visit.lines("body")
    of = _named(visit, visit.field("of"))
    named, malformed = read_headers(headers)
    if malformed:
        return _page(headers, body, f"This is no header, Name: value: {malformed[:80]}", of=of)
    try:
        verdict = visit.api.post("/webhooks/test/", {"headers": named, "body": body})
    except Refused as refused:
        return _page(headers, body, str(refused), of=of)
    return _page(headers, body, verdict=verdict, of=of)


def read_headers(text: str) -> tuple[dict[str, str], str]:
    """Parse headers, one a line; return them by name, and the first malformed line if any.

    Args:
        text: copied from a program's log or from curl's `-H` options.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        plain = line.strip().removeprefix("-H").strip().rstrip("\\").strip().strip("\"'")
        if not plain:
            continue
        name, colon, value = plain.partition(":")
        if not colon or not name.strip():
            return found, plain
        found[name.strip()] = value.strip()
    return found, ""


def _named(visit: Visit, received_at: str) -> Mapping[str, Any] | None:
    return of_moment(visit, received_at)[0] if received_at else None


def _page(
    headers: str,
    body: str,
    wrong: str = "",
    verdict: Mapping[str, Any] | None = None,
    of: Mapping[str, Any] | None = None,
) -> View:
    about = {
        "path": PATH,
        "headers": headers,
        "body": body,
        "wrong": wrong,
        "verdict": verdict,
        "of": of,
    }
    return View("signature.html", about, 400 if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", verify, max_form_bytes=MAX_LARGE_BYTES),
)
