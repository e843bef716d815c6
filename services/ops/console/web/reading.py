"""Reading what a path, a query or a form says; and writing a body so that people can."""

import msgspec

from services.ops.console.web.page import Visit


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
