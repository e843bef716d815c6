"""What senders write for a day, a time or a URL, in the one form that is taken."""

import re
from urllib.parse import quote

import idna

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ]\d\d:\d\d.*")
_LEAP = re.compile(r"([Tt ]\d\d:\d\d):60(?!\d)")
_URL = re.compile(r"(https://)([^/?#:@\\]+)(.*)")
_ASCII = "".join(map(chr, range(128)))


def day_of(text: str) -> str:
    """The day that is written in a time of RFC 3339, whatever its zone; other text as it is.

    Args:
        text: without white space around it.
    """
    found = _TIME.fullmatch(text)
    return found[1] if found else text


def without_leap_second(text: str) -> str:
    """A time in a leap second (RFC 3339, 5.7) as the second before: no clock of ours has any.

    Args:
        text: a time; whatever else it is stays as it is.
    """
    # Nearly none is, and to look for one takes longer than to read the time.
    return _LEAP.sub(r"\1:59", text, count=1) if ":60" in text else text


def url_of(text: str) -> str:
    """A URL with other letters as browsers send it: its host in A-labels, the rest as octets.

    The host is mapped by UTS 46, the rest percent-encoded UTF-8 (RFC 3987, 3.1). What is in ASCII
    stays as it is, and so does what has no such form.

    Args:
        text: without white space around it.
    """
    found = _URL.fullmatch(text)
    if found is None or text.isascii() or not text.isprintable():
        return text
    try:
        host = found[2] if found[2].isascii() else idna.encode(found[2], uts46=True).decode()
        return found[1] + host + quote(found[3], safe=_ASCII)
    except (idna.IDNAError, UnicodeError):
        return text
