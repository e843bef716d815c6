"""Reading what a path, a query or a form says; and writing a body so that people can."""

from uuid import UUID

import msgspec

from services.ops.console.web.page import PageError, Visit


def uuid_of(text: str) -> UUID:
    """An id.

    Raises:
        PageError: 404, when it is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise PageError(404, "There is no such page: that is no id.") from None


def positive(text: str) -> int:
    """A whole number from 0; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def legible(body: str) -> str:
    """JSON with a line a member; what is none as it is."""
    try:
        return msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        return body


def body_of(visit: Visit) -> str:
    """The field `body`, without the CRs that browsers put at line ends (HTML, 4.10.21.5)."""
    return visit.form.get("body", [""])[0].replace("\r\n", "\n")
