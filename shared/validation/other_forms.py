"""What senders write for a day or a URL, in the one form that is taken."""

import re
from urllib.parse import quote

import idna

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ]\d\d:\d\d.*")
_URL = re.compile(r"(https://)([^/?#:@\\]+)(.*)")
_ASCII = "".join(map(chr, range(128)))


def day_of(text: str) -> str:
    """The day that is written in a time of RFC 3339, whatever its zone; other text as it is.

    Args:
        text: without white space around it.
    """
    found = _TIME.fullmatch(text)
    return found[1] if found else text


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
