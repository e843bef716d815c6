"""What a browser calls itself (RFC 9110, 10.1.5), in a word."""

import re

# Each also claims to be those after it.
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


def browser(client: str) -> str:
    """Its name; the first word of one that is none of the usual."""
    for token, name in _NAMES.items():
        if re.search(rf"\b{token}\w*/", client):
            return name
    return re.sub(r"[^\w.-].*", "", client)[:40] or UNKNOWN


def in_words(network: str, client: str) -> str:
    """From where a session is."""
    return f"{network or 'an unknown network'} with {browser(client)}"
