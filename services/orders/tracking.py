"""Where a parcel can be followed and when it should be there, of all that was said of an order.

Each of the four is what the greatest of those messages says that say anything of it, by the rule
that decides the status (`progress.py`). So it is the same in whatever order they arrive, and one
that says nothing of a parcel takes nothing away.

Carrier and URL are of the parcel that has the number, though: they are not shown of another one.
Once there was another number, they count where they were said later than the last of any other, and
with a number beside them or later than the last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from services.orders.progress import Position, moves
from shared.bus.contract.events import Event, TrackingStatus

FIELDS = ("carrier", "tracking_number", "tracking_url", "estimated_delivery")
_NUMBER = "tracking_number"
_OF_ITS_PARCEL = ("carrier", "tracking_url")
_OTHER = "other_number"
"""In the place of a field: the last message with another number than the one that is known."""
_ALONE = "alone"
"""Beside the sources: the fields that were said without a number."""


@dataclass(frozen=True, slots=True)
class Said:
    """One of the four.

    Attributes:
        value: as it is shown; a day as in ISO 8601. Empty where it is not: it is of another parcel.
        by: of the message that said so.
        is_alone: whether that message had no number.
    """

    value: str
    by: Position
    is_alone: bool = False


Tracking = Mapping[str, Said]
"""By field, those of which something was said."""


def said_in(event: Event) -> dict[str, str]:
    """What an event says of the four; a platform's that names a parcel says its number, or none."""
    found = {}
    for field in FIELDS:
        value = getattr(event, field, None)
        if value:  # UNSET is false
            found[field] = value.isoformat() if isinstance(value, date) else value
    if event.OF_PLATFORM and found:
        found.setdefault(_NUMBER, "")
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
    number = said.get(_NUMBER)
    for field, value in said.items():
        known = current.get(field)
        if known is None or moves(order_id, known.by, by):
            after[field] = Said(value, by, number is None and field in _OF_ITS_PARCEL)
    before = current.get(_NUMBER)
    if number is not None and before is not None and number != before.value:
        other = by if after[_NUMBER] is before else before.by
        last = current.get(_OTHER)
        if last is None or moves(order_id, last.by, other):
            after[_OTHER] = Said("", other)
    if _OTHER in after:
        for field in _OF_ITS_PARCEL:
            if field in after and not _is_of_the_parcel(order_id, after, after[field]):
                after[field] = replace(after[field], value="")
    return after


def _is_of_the_parcel(order_id: UUID, known: Tracking, said: Said) -> bool:
    if not moves(order_id, known[_OTHER].by, said.by):
        return False
    return not said.is_alone or moves(order_id, known[_NUMBER].by, said.by)


def values(tracking: Tracking) -> dict[str, str]:
    """What is shown of it, by field."""
    return {field: said.value for field, said in tracking.items() if said.value}


def sources(tracking: Tracking) -> dict[str, list[str]]:
    """Which message said each, to be stored beside the values."""
    found = {
        field: [said.by.status.value, said.by.at.isoformat(), str(said.by.event_id)]
        for field, said in tracking.items()
    }
    alone = [field for field, said in tracking.items() if said.is_alone]
    return found | ({_ALONE: alone} if alone else {})


def stored(shown: Mapping[str, str] | None, by: Mapping[str, Any] | None) -> dict[str, Said]:
    """What `values` and `sources` made, read again.

    Args:
        shown: the values.
        by: the sources.
    """
    if not by:
        return {}
    alone = by.get(_ALONE, ())
    return {
        field: Said((shown or {}).get(field, ""), _position(*source), field in alone)
        for field, source in by.items()
        if field != _ALONE
    }


def _position(status: str, at: str, event_id: str) -> Position:
    return Position(TrackingStatus(status), datetime.fromisoformat(at), UUID(event_id))


def as_told(shown: Mapping[str, str]) -> dict[str, Any]:
    """The values as an event has them.

    Args:
        shown: what `values` has made.
    """
    told: dict[str, Any] = dict(shown)
    if "estimated_delivery" in told:
        told["estimated_delivery"] = date.fromisoformat(told["estimated_delivery"])
    return told
