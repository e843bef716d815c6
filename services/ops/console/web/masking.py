"""Masks personal data for users without the right to see it."""

import re

from markupsafe import Markup

HIDDEN = "•••"
# Anywhere in a text. Nearly any character may precede the @ (RFC 5322, 3.2.3), so more than the
# address is hidden at times; a link's query percent-encodes special characters.
_ENDS = r"\s\"<>()\[\],;:"
_ENDS_IN_LINKS = _ENDS + r"'{}=&?/"
_ADDRESS = re.compile(
    rf"[^{_ENDS}'@][^{_ENDS}@]{{0,255}}@[^{_ENDS_IN_LINKS}]+"
    rf"|[^{_ENDS_IN_LINKS}]{{1,256}}%40[^{_ENDS_IN_LINKS}]+",
    re.IGNORECASE,
)


class Given(str):
    """Text that the user typed, or that a form sends back verbatim: never masked."""

    __slots__ = ()


def mask(value: object, part: str | None = None) -> object:
    """Return a value as shown to users without the right to see it.

    Args:
        value: a value of a template.
        part: the personal part of it, beside any email address; None: all of it, such as a name or
            the body of a message.
    """
    if value is None or isinstance(value, Markup | Given | int | float):
        return value
    text = str(value)
    if part is None:
        return HIDDEN if text else text
    if part:
        text = text.replace(part, HIDDEN)
    return _ADDRESS.sub(f"{HIDDEN}@{HIDDEN}", text) if "@" in text or "%40" in text else text
