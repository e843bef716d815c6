"""Normalises the forms in which senders write a day, a time or a URL."""

import re
from urllib.parse import quote

import idna

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ]\d\d:\d\d.*")
_ZONED_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?"
    r"(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)"
)
_LEAP = re.compile(r"([Tt ]\d\d:\d\d):60(?!\d)")
_URL = re.compile(r"(https://)([^/?#:@\\]+)(.*)")
_ASCII = "".join(map(chr, range(128)))


def day_of(text: str) -> str:
    """Return the day in an RFC 3339 time, whatever its zone; other text unmodified.

    Args:
        text: without surrounding white space.
    """
    found = _TIME.fullmatch(text)
    return found[1] if found else text


def without_leap_second(text: str) -> str:
    """Replace a leap second (RFC 3339, 5.7), which datetime does not support, by the one before.

    Args:
        text: a time; other text is returned unmodified.
    """
    # Leap seconds are rare, and the regex takes longer than parsing the time.
    return _LEAP.sub(r"\1:59", text, count=1) if ":60" in text else text


def time_of(text: str) -> str:
    """Return a time with a zone in the form of RFC 3339; other text unmodified.

    It adds missing seconds (Java, `OffsetDateTime.toString`) and minutes of the zone (PostgreSQL,
    `timestamptz`), replaces a decimal comma (ISO 8601), and a leap second as `without_leap_second`.

    Args:
        text: without surrounding white space.
    """
    found = _ZONED_TIME.fullmatch(text)
    if found is None:
        return text
    day, minute, second, fraction, utc, hours, minutes = found.groups()
    zone = "Z" if utc else f"{hours}:{minutes or '00'}"
    fraction = f".{fraction}" if fraction else ""
    return without_leap_second(f"{day}T{minute}:{second or '00'}{fraction}{zone}")


def is_time_without_zone(text: str) -> bool:
    """Return whether a text is a time that only lacks its zone."""
    return _ZONED_TIME.fullmatch(f"{text}Z") is not None


def url_of(text: str) -> str:
    """Return an https URL with non-ASCII characters in the form that browsers send.

    The host is mapped by UTS 46, the rest is percent-encoded UTF-8 (RFC 3987, 3.1). Other text is
    returned unmodified.

    Args:
        text: without surrounding white space.
    """
    found = _URL.fullmatch(text)
    if found is None or text.isascii() or not text.isprintable():
        return text
    try:
        host = found[2] if found[2].isascii() else idna.encode(found[2], uts46=True).decode()
        return found[1] + host + quote(found[3], safe=_ASCII)
    except (idna.IDNAError, UnicodeError):
        return text
