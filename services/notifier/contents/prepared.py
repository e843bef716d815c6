"""Renders emails about orders from prepared pieces, cached for facts that differ only in values.

A shop's emails differ only in names, numbers and addresses. Rendering one takes 200 us, filling in
the values 20. The contents and the layout are rendered once with marks in the places of the values,
and the pieces between the marks are cached. A test compares each email with a direct rendering.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from markupsafe import escape

from services.notifier.contents import rendering
from services.notifier.contents.content import Content, Setting

MOST_KEPT = 1_024
"""Cached emails, of about 10 kB; each shop has one for each status and language it uses."""

_OF_ORDER = (
    "order_id",
    "account_id",
    "customer_name",
    "customer_email",
    "item_summary",
    "address",
    "note",
    "reason",
    "order_number",
    "carrier",
    "tracking_number",
    "tracking_url",
    "order_email",
)
"""Fields of a fact with a mark. All others, and empty ones, are part of the cache key."""
_OF_SETTING = ("excerpt", "tracking_page", "unsubscribe_url")
# Random, so no name or note can contain a mark. In a table or a quote a line feed is followed by
# spaces; the line feed in a mark shows how many.
_TOKEN = secrets.token_hex(8)
_NEEDS_NO_ESCAPE = re.compile(r"[^&<>\"'\x80-\U0010ffff]*").fullmatch  # in HTML, and in ASCII
_MARK = re.compile(rf"\x00{_TOKEN}-(\w+)(\n *)\x00")


def parts(
    fact: Any, content_of: Callable[[Any, Setting], Content], setting: Setting
) -> rendering.Parts:
    """Render the email of a fact about an order, like `rendering.parts`.

    Args:
        fact: the fact.
        content_of: returns the fact's content.
        setting: what the email depends on besides the fact.
    """
    of_order = {name: value for name in _OF_ORDER if (value := getattr(fact, name, None))}
    of_setting = {name: value for name in _OF_SETTING if (value := getattr(setting, name))}
    prepared = _prepared(
        msgspec.structs.replace(fact, **_marks(tuple(of_order))),
        content_of,
        setting._replace(**_marks(tuple(of_setting))),
    )
    given = of_order | of_setting
    values = {name: str(given[name]) for name in prepared.names}
    return rendering.Parts(
        prepared.subject.filled(values),
        prepared.text.filled(values),
        prepared.html.filled({name: _in_html(value) for name, value in values.items()}),
    )


class _Pieces(NamedTuple):
    """A text in pieces; a place is an index of one, the name of its value, and its line feed."""

    pieces: tuple[str, ...]
    places: tuple[tuple[int, str, str], ...]

    def filled(self, values: Mapping[str, str]) -> str:
        pieces = list(self.pieces)
        for index, name, line_feed in self.places:
            value = values[name]
            pieces[index] = value.replace("\n", line_feed) if "\n" in value else value
        return "".join(pieces)


class _Prepared(NamedTuple):
    """The parts in pieces, and the names of all values in them."""

    subject: _Pieces
    text: _Pieces
    html: _Pieces
    names: frozenset[str]


@lru_cache(MOST_KEPT)
def _prepared(
    fact: Any, content_of: Callable[[Any, Setting], Content], setting: Setting
) -> _Prepared:
    subject, text, html = map(_cut, rendering.parts(fact, content_of, setting))
    places = (*subject.places, *text.places, *html.places)
    return _Prepared(subject, text, html, frozenset(name for _, name, _ in places))


def _cut(marked: str) -> _Pieces:
    pieces: list[str] = []
    places: list[tuple[int, str, str]] = []
    at = 0
    for mark in _MARK.finditer(marked):
        pieces += (marked[at : mark.start()], "")
        places.append((len(pieces) - 1, mark[1], mark[2]))
        at = mark.end()
    pieces.append(marked[at:])
    return _Pieces(tuple(pieces), tuple(places))


@lru_cache
def _marks(names: tuple[str, ...]) -> Mapping[str, Any]:
    return {name: f"\x00{_TOKEN}-{name}\n\x00" for name in names}


def _in_html(value: str) -> str:
    return value if _NEEDS_NO_ESCAPE(value) else rendering.in_ascii(str(escape(value)))
