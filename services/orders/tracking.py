"""The tracking data of an order (carrier, number, URL, estimated day), merged from its messages.

Each field has the value of the greatest message that contains it, by the rule that decides the
status (`progress.py`), so the result does not depend on the order of arrival; a message without
tracking data removes nothing.

Carrier and URL belong to the parcel with the number and are not shown with another number: once
there was another number, they count only if they are later than the last message with any other
one, and came with a number or later than the last message with one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from typing import Any
from uuid import UUID

from services.orders.progress import Position, applies
from shared.bus.contract.events import Event, TrackingStatus

FIELDS = ("carrier", "tracking_number", "tracking_url", "estimated_delivery")
_NUMBER = "tracking_number"
_OF_ITS_PARCEL = ("carrier", "tracking_url")
_OTHER = "other_number"
"""Beside the fields: the last message with another number than the current one."""
_ALONE = "alone"
"""Beside the sources: the fields whose message had no number."""


@dataclass(frozen=True, slots=True)
class Field:
    """The value of one field and its source.

    Attributes:
        value: as shown; a day in ISO 8601. Empty if hidden, since it is of another parcel.
        by: the position of the message that contained it.
        is_alone: whether that message had no number.
    """

    value: str
    by: Position
    is_alone: bool = False


Tracking = Mapping[str, Field]
"""The known fields, by name."""


def fields_of(event: Event) -> dict[str, str]:
    """Return an event's tracking fields; a platform's with any of them always has a number.

    An empty number is a parcel's without one.
    """
    found = {}
    for field in FIELDS:
        value = getattr(event, field, None)
        if value:  # UNSET is false
            found[field] = value.isoformat() if isinstance(value, date) else value
    if event.OF_PLATFORM and found:
        found.setdefault(_NUMBER, "")
    return found


def merged(
    order_id: UUID,
    current: Tracking,
    fields: Mapping[str, str],
    by: Position,
    *,
    by_arrival: bool = False,
) -> dict[str, Field]:
    """Return the tracking data after one more message.

    Args:
        order_id: the order.
        current: the data before.
        fields: the message's fields.
        by: the message's position, whether or not it counts.
        by_arrival: see `progress.applies`.
    """
    is_later = partial(applies, order_id, by_arrival=by_arrival)
    after = dict(current)
    number = fields.get(_NUMBER)
    for field, value in fields.items():
        known = current.get(field)
        if known is None or is_later(known.by, by):
            after[field] = Field(value, by, number is None and field in _OF_ITS_PARCEL)
    before = current.get(_NUMBER)
    if number is not None and before is not None and number != before.value:
        other = by if after[_NUMBER] is before else before.by
        last = current.get(_OTHER)
        if last is None or is_later(last.by, other):
            after[_OTHER] = Field("", other)
    if _OTHER in after:
        for field in _OF_ITS_PARCEL:
            if field in after and not _is_of_the_parcel(is_later, after, after[field]):
                after[field] = replace(after[field], value="")
    return after


def _is_of_the_parcel(
    is_later: Callable[[Position, Position], bool], known: Tracking, field: Field
) -> bool:
    if not is_later(known[_OTHER].by, field.by):
        return False
    return not field.is_alone or is_later(known[_NUMBER].by, field.by)


def values(tracking: Tracking) -> dict[str, str]:
    """Return the values to show, by field."""
    return {name: field.value for name, field in tracking.items() if field.value}


def sources(tracking: Tracking) -> dict[str, list[str]]:
    """Return the source of each field, to be stored beside the values."""
    found = {
        name: [field.by.status.value, field.by.at.isoformat(), str(field.by.event_id)]
        for name, field in tracking.items()
    }
    alone = [name for name, field in tracking.items() if field.is_alone]
    return found | ({_ALONE: alone} if alone else {})


def stored(shown: Mapping[str, str] | None, by: Mapping[str, Any] | None) -> dict[str, Field]:
    """Return the tracking data of an order's row.

    Args:
        shown: what `values` returned.
        by: what `sources` returned.
    """
    if not by:
        return {}
    alone = by.get(_ALONE, ())
    return {
        name: Field((shown or {}).get(name, ""), _position(*source), name in alone)
        for name, source in by.items()
        if name != _ALONE
    }


def _position(status: str, at: str, event_id: str) -> Position:
    return Position(TrackingStatus(status), datetime.fromisoformat(at), UUID(event_id))


def event_fields(shown: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `values` as fields of an event."""
    fields: dict[str, Any] = dict(shown)
    if "estimated_delivery" in fields:
        fields["estimated_delivery"] = date.fromisoformat(fields["estimated_delivery"])
    return fields
