"""Days, as they are written in what senders take for a day."""

import re

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ]\d\d:\d\d.*")


def day_of(text: str) -> str:
    """The day that is written in a time of RFC 3339, whatever its zone; other text as it is.

    Args:
        text: without white space around it.
    """
    found = _TIME.fullmatch(text)
    return found[1] if found else text
