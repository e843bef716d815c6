"""Finds members whose name may be a misspelling of a field's."""

import difflib
import re
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

_CUTOFF = 0.8  # of difflib's ratio
_SYNONYMS = (
    (re.compile(r"(?<=.)(?:no|nr|num|code)\Z"), "number"),
    (re.compile(r"(?<=.)link\Z"), "url"),
)
"""Other words for the last word of a name."""
MOST_COMPARED, LONGEST_COMPARED, _MOST_PARTS = 100, 100, 3


def misspelt(name: str, members: Mapping[str, Any], known: Collection[str]) -> str:
    """Return the name of an unknown member that may be a misspelling of a field; empty if none is.

    Args:
        name: of the field.
        members: the members.
        known: the names of all fields.
    """
    # Limited, because comparing names takes longer than parsing them.
    unknown = list(islice((other for other in members if other not in known), MOST_COMPARED))
    others = {form: other for other in unknown for form in forms(other[:LONGEST_COMPARED])}
    for form in forms(name):
        close = difflib.get_close_matches(form, others, n=1, cutoff=_CUTOFF)
        if close:
            return others[close[0]]
    tail = name.rpartition("_")[2]  # `status`, for `tracking_status`
    return tail if name in known and tail in unknown else ""


def folded(name: str) -> str:
    """Return a name in lower case without separators."""
    return re.sub(r"[\W_]+", "", name).lower()


def forms(name: str) -> tuple[str, ...]:
    """Return the forms by which a name is compared: `order_no` equals `order_number`."""
    plain = folded(name)
    return (plain, *(other.sub(word, plain) for other, word in _SYNONYMS if other.search(plain)))


def alternatives(
    name: str, members: Mapping[str, Any], known: Collection[str]
) -> tuple[str, list[str]]:
    """Return a likely misspelling of a missing member, or else members that may be its parts."""
    if near := misspelt(name, members, known):
        return near, []
    last, few = folded(name), islice(members, MOST_COMPARED)
    parts = [
        other
        for other in few
        if other not in known and folded(other[:LONGEST_COMPARED]).endswith(last)
    ]
    return "", parts[:_MOST_PARTS]
