"""Guesses the event type that a refused body was meant to have.

A body without a `type` is read as a new order. The most common mistakes are an update without its
`type`, and an order or update wrapped in another object.
"""

import difflib
from collections.abc import Mapping
from itertools import islice
from typing import Any

from shared.bus.contract.events import OrderCancelled, OrderCreated, OrderStatusChanged
from shared.intake.event_bodies import BODIES, NAMES
from shared.validation.foreign_shapes import WRAPPERS

_FIELDS = {type_: set(body.__struct_fields__) for type_, body in BODIES.items()}
_ORDER = _FIELDS[OrderCreated.TYPE] - _FIELDS[OrderStatusChanged.TYPE]
_MOST_NAMES = 100
"""Members examined of a body."""
_NEAR, _LONGEST_TYPE = 0.8, 100
_CHANGES = ("update", "change", "status", "ship", "deliver", "fulfil")
_UPDATE = (_FIELDS[OrderStatusChanged.TYPE] | _FIELDS[OrderCancelled.TYPE]) - {
    *NAMES,
    "type",
    "timestamp",
}


def update_type(body: Mapping[str, Any]) -> str | None:
    """Return the type of a body that is an update without its `type`; None if it is none.

    Args:
        body: its members. An update names an order, has a field of an update and none that only a
            new order has.
    """
    names = body.keys()
    if not names & set(NAMES) or not names & _UPDATE or names & _ORDER:
        return None
    is_cancelled = "reason" in names and "tracking_status" not in names
    return OrderCancelled.TYPE if is_cancelled else OrderStatusChanged.TYPE


def type_of(body: Mapping[str, Any]) -> str | None:
    """Return the likely type of a body with an unknown `type`, by that or by its other members.

    Args:
        body: its members.
    """
    word = body["type"].lower() if isinstance(body["type"], str) else ""
    close = difflib.get_close_matches(word[:_LONGEST_TYPE], BODIES, n=1, cutoff=_NEAR)
    if close:
        return close[0]
    if "cancel" in word:
        return OrderCancelled.TYPE
    data = body["data"] if isinstance(body.get("data"), Mapping) else body
    if any(change in word for change in _CHANGES):
        return OrderStatusChanged.TYPE
    return update_type(data) or (OrderCreated.TYPE if data.keys() & _ORDER else None)


def type_member(body: Mapping[str, Any]) -> str | None:
    """Return the name of the member that contains the event type, if it is not called `type`.

    None if there is none, or if the body has a field that only a new order has.

    Args:
        body: its members.
    """
    if body.keys() & _ORDER:
        return None
    names = islice(body, _MOST_NAMES)
    return next((n for n in names if isinstance(body[n], str) and body[n] in BODIES), None)


def wrapper(body: Mapping[str, Any]) -> str | None:
    """Return the name of the member that contains the order or update; None if there is none.

    Args:
        body: its members.
    """
    if body.keys() & (_ORDER | _UPDATE):
        return None
    names = (*WRAPPERS, *islice(body, _MOST_NAMES))
    return next((name for name in names if _is_event(body.get(name))), None)


def _is_event(inner: Any) -> bool:
    return isinstance(inner, dict) and bool(inner.keys() & (_ORDER | _UPDATE))
