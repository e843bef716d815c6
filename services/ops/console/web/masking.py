"""Persons' data, masked for those who may only look."""

import re

from markupsafe import Markup

HIDDEN = "•••"
# Wherever it stands in a text. Before the @ may be nearly anything (RFC 5322, 3.2.3), so that more
# than the address is hidden at times; in a link's query what is special is written with a %.
_ENDS = r"\s\"<>()\[\],;:"
_ENDS_IN_LINKS = _ENDS + r"'{}=&?/"
_ADDRESS = re.compile(
    rf"[^{_ENDS}'@][^{_ENDS}@]{{0,255}}@[^{_ENDS_IN_LINKS}]+"
    rf"|[^{_ENDS_IN_LINKS}]{{1,256}}%40[^{_ENDS_IN_LINKS}]+",
    re.IGNORECASE,
)


class Given(str):
    """What whoever looks has typed in, or a form gives back as it was: never masked."""

    __slots__ = ()


def mask(value: object, part: str | None = None) -> object:
    """What is shown instead of a value to somebody without the right to see it.

    Args:
        value: as it stands in a template.
        part: what in it is of a person, beside any email address; None: all of it is, such as a
            name, or the body of a message.
    """
    if value is None or isinstance(value, Markup | Given | int | float):
        return value
    text = str(value)
    if part is None:
        return HIDDEN if text else text
    if part:
        text = text.replace(part, HIDDEN)
    return _ADDRESS.sub(f"{HIDDEN}@{HIDDEN}", text) if "@" in text or "%40" in text else text
