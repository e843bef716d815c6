"""Reading what a path, a query or a form says; and writing a body so that people can."""

import msgspec

from services.ops.console.web.page import Visit

MOST = 2**63 - 1
"""PostgreSQL's bigint."""


def number(text: str) -> int | None:
    """A whole number from 0 to `MOST`; None for what is none."""
    if not (text.isascii() and text.isdigit()):
        return None
    significant = text.lstrip("0")
    if len(significant) > len(str(MOST)):  # nor is it read: that takes long
        return None
    found = int(significant or "0")
    return found if found <= MOST else None


def positive(text: str) -> int:
    """A whole number from 0 to `MOST`; 0 for what is none."""
    return number(text) or 0


def legible(body: str) -> str:
    """JSON with a line a member; what is none as it is."""
    try:
        return msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        return body


def body_of(visit: Visit) -> str:
    """The field `body`, without the CRs that browsers put at line ends (HTML, 4.10.21.5)."""
    return visit.form.get("body", [""])[0].replace("\r\n", "\n")
