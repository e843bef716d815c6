"""What the request headers of a browser reveal: its name and its reader's language."""

import re

from shared.languages.language import CODES

# A browser also claims the names that follow its own here.
_NAMES = {
    "Edg": "Edge",
    "OPR": "Opera",
    "Firefox": "Firefox",
    "HeadlessChrome": "Chrome",
    "Chromium": "Chromium",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
UNKNOWN = "an unknown browser"
_RANGE = re.compile(
    r"\s*([a-z]{1,8})(?:-[a-z0-9-]+)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE
)


def browser(client: str) -> str:
    """Return the name of a browser by its `User-Agent` (RFC 9110, 10.1.5).

    That of an unknown one is the first word of the header.
    """
    for token, name in _NAMES.items():
        if re.search(rf"\b{token}\w*/", client):
            return name
    return re.sub(r"[^\w.-].*", "", client)[:40] or UNKNOWN


def in_words(network: str, client: str) -> str:
    """Return where a session comes from, such as `192.0.2.7 with Firefox`."""
    return f"{network or 'an unknown network'} with {browser(client)}"


def preferred_language(accept_language: str) -> str:
    """Return the code of the language that a reader prefers among ours; empty if there is none.

    Args:
        accept_language: the header (RFC 9110, 12.5.4). A range that is malformed is ignored.
    """
    ranges = filter(None, map(_RANGE.fullmatch, accept_language.split(",")))
    weights = [(float(found[2] or 1), found[1].lower()) for found in ranges]
    known = [(weight, code) for weight, code in weights if code in CODES and weight > 0]
    return max(known, key=lambda each: each[0], default=(0, ""))[1]
