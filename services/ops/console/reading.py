"""Reading what a path, a query or a form says; and writing a body so that people can."""

from uuid import UUID

import msgspec

from services.ops.console.page import PageError


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
