"""Reads numbers and reasons from paths, queries and forms, and formats message bodies."""

import msgspec

from services.ops.audit.actions import unfit
from services.ops.console.web.page import Visit
from shared.web.results import PageError

MOST = 2**63 - 1
"""PostgreSQL's bigint."""
SAME_ID = "Under the same id: what was done by it already is not done twice."
"""Said before an edited message goes back."""


def number(text: str) -> int | None:
    """Parse a whole number from 0 to `MOST`; None if it is none."""
    if not (text.isascii() and text.isdigit()):
        return None
    significant = text.lstrip("0")
    if len(significant) > len(str(MOST)):  # before `int`, which is quadratic
        return None
    found = int(significant or "0")
    return found if found <= MOST else None


def positive(text: str) -> int:
    """Parse a whole number from 0 to `MOST`; 0 if it is none."""
    return number(text) or 0


def legible(body: str) -> str:
    """Indent a JSON text; return any other unmodified."""
    try:
        return msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        return body


def reason_of(visit: Visit) -> str:
    """Return the field `why`.

    Raises:
        PageError: 400, if it is not fit for the audit log; see `unfit`.
    """
    reason = visit.field("why")
    if wrong := unfit(reason):
        raise PageError(400, f"Your reason {wrong}.")
    return reason
