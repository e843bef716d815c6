"""Reading what a path, a query or a form says."""

from uuid import UUID

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
