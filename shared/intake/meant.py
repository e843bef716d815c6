"""What a body that is refused as a new order was meant to be.

Without a `type` a body is a new order. The commonest slips are an update whose `type` was
forgotten, and an order, or an update, inside another object.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from shared.bus.contract.events import OrderCancelled, OrderCreated, OrderStatusChanged
from shared.intake.event_bodies import BODIES, NAMES
from shared.validation.foreign_shapes import WRAPPERS

_OURS = {type_: set(body.__struct_fields__) for type_, body in BODIES.items()}
_ORDER = _OURS[OrderCreated.TYPE] - _OURS[OrderStatusChanged.TYPE]
_MOST_NAMES = 100
"""Of a stranger's thousands of members so many are looked into."""
_UPDATE = (_OURS[OrderStatusChanged.TYPE] | _OURS[OrderCancelled.TYPE]) - {
    *NAMES,
    "type",
    "timestamp",
}


def update(body: Mapping[str, Any]) -> str | None:
    """The type that a body lacks which is an update but for that; None where it is none.

    Args:
        body: its members: an order is named, something is said of it, and nothing of what only a
            new order has.
    """
    names = body.keys()
    if not names & set(NAMES) or not names & _UPDATE or names & _ORDER:
        return None
    is_cancelled = "reason" in names and "tracking_status" not in names
    return OrderCancelled.TYPE if is_cancelled else OrderStatusChanged.TYPE


def type_named(body: Mapping[str, Any]) -> str | None:
    """The member of a body that says which event it is, under another name than `type`.

    None where there is none, or what only a new order has.

    Args:
        body: its members.
    """
    if body.keys() & _ORDER:
        return None
    names = islice(body, _MOST_NAMES)
    return next((n for n in names if isinstance(body[n], str) and body[n] in BODIES), None)


def wrapper(body: Mapping[str, Any]) -> str | None:
    """The member of a body that the order, or the update, is in; None where there is none.

    Args:
        body: its members.
    """
    if body.keys() & (_ORDER | _UPDATE):
        return None
    names = (*WRAPPERS, *islice(body, _MOST_NAMES))
    return next((name for name in names if _is_ours(body.get(name))), None)


def _is_ours(inner: Any) -> bool:
    return isinstance(inner, dict) and bool(inner.keys() & (_ORDER | _UPDATE))
