"""Why a signature is wrong: a request as it was sent, judged; nothing of it is recorded."""

from collections.abc import Mapping
from typing import Any

from services.portal.web.api import Refused
from services.portal.web.page import Page, Result, Visit
from shared.web.results import View

PATH = "/signature"


def show(_: Visit) -> Result:
    """The form."""
    return _page("", "")


def verify(visit: Visit) -> Result:
    """What the webhook would answer, and why."""
    headers, body = visit.lines("headers"), visit.lines("body")
    named, strange = read_headers(headers)
    if strange:
        return _page(headers, body, f"This is no header, Name: value: {strange[:80]}")
    try:
        verdict = visit.api.post("/webhooks/test/", {"headers": named, "body": body})
    except Refused as refused:
        return _page(headers, body, str(refused))
    return _page(headers, body, verdict=verdict)


def read_headers(text: str) -> tuple[dict[str, str], str]:
    """Headers by name, of text with one in each line; and the first line that is none.

    Args:
        text: as it is copied from a program's log, or from curl's `-H`.
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


def _page(
    headers: str, body: str, wrong: str = "", verdict: Mapping[str, Any] | None = None
) -> View:
    about = {"path": PATH, "headers": headers, "body": body, "wrong": wrong, "verdict": verdict}
    return View("signature.html", about, 400 if wrong else 200)


PAGES = (
    Page("GET", PATH, "business", show),
    Page("POST", PATH, "business", verify),
)
