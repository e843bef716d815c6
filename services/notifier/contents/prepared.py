"""Emails about orders, rendered once for all orders that differ only in what is put in as it is.

A shop's thousand emails of a day say the same in all but names, numbers and addresses. To render
one is 200 us, to fill in what differs 20. Nothing is written twice for it: the contents and the
layout are rendered with marks in the places of what differs, and what stands around the marks is
kept. A test holds every email to what the contents and the layout make of the fact itself.
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
"""Of some 10 kB; each shop has one for each status and language that it uses."""

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
"""Of a fact. What is not named here, or is empty, is part of what an email is kept by."""
_OF_SETTING = ("excerpt", "tracking_page", "unsubscribe_url")
# Nobody outside knows it, so no name or note has a mark in it. In a table or a quotation a line
# feed is followed by spaces; the one in a mark shows by how many.
_TOKEN = secrets.token_hex(8)
_AS_IT_IS = re.compile(r"[^&<>\"'\x80-\U0010ffff]*").fullmatch  # in HTML, and in ASCII
_MARK = re.compile(rf"\x00{_TOKEN}-(\w+)(\n *)\x00")


def parts(
    fact: Any, content_of: Callable[[Any, Setting], Content], setting: Setting
) -> rendering.Parts:
    """As `rendering.parts`, of an order.

    Args:
        fact: about the order.
        content_of: what is said of it.
        setting: what it is told with.
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
    """A text with places: its pieces, and for each place its index, what goes in, line feeds."""

    pieces: tuple[str, ...]
    places: tuple[tuple[int, str, str], ...]

    def filled(self, values: Mapping[str, str]) -> str:
        pieces = list(self.pieces)
        for index, name, line_feed in self.places:
            value = values[name]
            pieces[index] = value.replace("\n", line_feed) if "\n" in value else value
        return "".join(pieces)


class _Prepared(NamedTuple):
    """The parts, and the names of what goes into any of them."""

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
    return value if _AS_IT_IS(value) else rendering.in_ascii(str(escape(value)))
