"""Where a parcel can be followed and when it should be there, of all that was said of an order.

Each of the four is what the greatest of those messages says that say anything of it, by the rule
that decides the status (`progress.py`). So it is the same in whatever order they arrive, and one
that says nothing of a parcel takes nothing away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from services.orders.progress import Position, moves
from shared.bus.contract.events import Event, TrackingStatus

FIELDS = ("carrier", "tracking_number", "tracking_url", "estimated_delivery")


@dataclass(frozen=True, slots=True)
class Said:
    """One of the four.

    Attributes:
        value: as it is shown; a day as in ISO 8601.
        by: of the message that said so.
    """

    value: str
    by: Position


Tracking = Mapping[str, Said]
"""By field, those of which something was said."""


def said_in(event: Event) -> dict[str, str]:
    """What an event says of the four."""
    found = {}
    for field in FIELDS:
        value = getattr(event, field, None)
        if value:  # UNSET is false
            found[field] = value.isoformat() if isinstance(value, date) else value
    return found


def merged(
    order_id: UUID, current: Tracking, said: Mapping[str, str], by: Position
) -> dict[str, Said]:
    """What is known after one more message.

    Args:
        order_id: whose.
        current: what is known.
        said: what the message says.
        by: where it puts the order, whether or not it counts.
    """
    after = dict(current)
    for field, value in said.items():
        known = current.get(field)
        if known is None or moves(order_id, known.by, by):
            after[field] = Said(value, by)
    return after


def values(tracking: Tracking) -> dict[str, str]:
    """What is shown of it, by field."""
    return {field: said.value for field, said in tracking.items()}


def sources(tracking: Tracking) -> dict[str, list[str]]:
    """Which message said each, to be stored beside the values."""
    return {
        field: [said.by.status.value, said.by.at.isoformat(), str(said.by.event_id)]
        for field, said in tracking.items()
    }


def stored(shown: Mapping[str, str] | None, by: Mapping[str, Any] | None) -> dict[str, Said]:
    """What `values` and `sources` made, read again.

    Args:
        shown: the values.
        by: the sources.
    """
    if not shown or not by:
        return {}
    return {
        field: Said(
            value,
            Position(TrackingStatus(status), datetime.fromisoformat(at), UUID(event_id)),
        )
        for field, value in shown.items()
        for status, at, event_id in [by[field]]
    }


def as_told(shown: Mapping[str, str]) -> dict[str, Any]:
    """The values as an event has them.

    Args:
        shown: what `values` has made.
    """
    told: dict[str, Any] = dict(shown)
    if "estimated_delivery" in told:
        told["estimated_delivery"] = date.fromisoformat(told["estimated_delivery"])
    return told
