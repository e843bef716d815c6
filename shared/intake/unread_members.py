"""Warns of unread members of a valid body whose names may be meant for a missing optional field."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from shared.bus.contract.events import OrderCancelled, OrderCreated, OrderStatusChanged
from shared.intake.event_bodies import BODIES, DETAILS, ENVELOPE, NUMBER
from shared.validation import json_text, names, reading

MOST_WARNINGS = 5
_MOST_NAMES, _LONGEST_NAME = 30, 40
"""Bodies with more members, and longer names, get no warnings: no field of ours is that long."""
_DIGIT = re.compile(r"\d")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def warnings(type_: str, members: Mapping[str, Any], path: str) -> Sequence[str]:
    """Return warnings on a valid event, at most `MOST_WARNINGS`.

    Args:
        type_: of the event.
        members: its members, decoded or raw.
        path: of the event in the body.
    """
    inner = members.get(DETAILS)
    if isinstance(inner, msgspec.Raw):
        try:
            inner = _members.decode(inner)
        except (ValueError, RecursionError, OverflowError):
            inner = None
    if not isinstance(inner, Mapping):
        inner = {}
    if len(members) + len(inner) > _MOST_NAMES:
        return ()
    return _cached_warnings(type_, _named(members), _named(inner), path)


def _named(members: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names to check; one with a digit is likely generated and differs by body."""
    return tuple(
        name
        for name, value in members.items()
        if value is not None and len(name) <= _LONGEST_NAME and not _DIGIT.search(name)
    )


@lru_cache(maxsize=256)
def _cached_warnings(
    type_: str, names: tuple[str, ...], inner: tuple[str, ...], path: str
) -> tuple[str, ...]:
    """Return the warnings for a set of names; cached, because a sender always uses the same."""
    members: dict[str, Any] = dict.fromkeys(names, True)
    if DETAILS in members:
        members[DETAILS] = dict.fromkeys(inner, True)
    return tuple(_find(type_, members, path)[:MOST_WARNINGS])


_IDS = frozenset({"orderid", "id", "externalid", "externalorderid"})
"""Common names for the id of a new order, in the form of `names.folded`."""
_NUMBER = dict.fromkeys(("number", "reference", "ref", "orderreference", "orderref"), NUMBER)
_OF_A_PARCEL = {
    "tracking": "tracking_number",
    "courier": "carrier",
    "carriername": "carrier",
    "shippingcarrier": "carrier",
    "deliverydate": "estimated_delivery",
    "eta": "estimated_delivery",
}
# Not for a new order, where it is the URL of the order's page.
_URL = dict.fromkeys(("url", "link"), "tracking_url")
_STATUS = dict.fromkeys(
    ("status", "state", "orderstatus", "shippingstatus", "shipmentstatus", "deliverystatus",
     "fulfillmentstatus"),
    "tracking_status",
)  # fmt: skip
_OTHER_NAMES = {
    OrderCreated.TYPE: _STATUS | _OF_A_PARCEL | _NUMBER,
    OrderStatusChanged.TYPE: _OF_A_PARCEL | _URL | {"reason": "note"},
    OrderCancelled.TYPE: dict.fromkeys(("note", "cancelreason", "cancellationreason"), "reason"),
}
"""Names that fields have in other events or other systems, by event type."""
_OF_AN_ADDRESS = frozenset(
    {"city", "zip", "zipcode", "postcode", "postalcode", "country", "countrycode"}
)
"""Beside one of these a `state` is a part of the address."""


def of_body(body: bytes) -> list[str]:
    """Return the warnings on a valid body without the limits of `warnings`.

    Of an object the first hundred members count.

    Args:
        body: the raw body, which `bodies.read` accepts: unread members of it may be invalid.
    """
    try:
        value = json_text.parse(body)
    except json_text.NotJsonError:
        return []
    type_, data = value.get("type"), value.get("data")
    if type_ is None or data is None:
        return _find(type_ or OrderCreated.TYPE, value, "$")
    return _find(type_, data, "$.data")


def _find(type_: str, members: Mapping[str, Any], path: str) -> list[str]:
    # Inside of `data`, no member is meant for a field of the envelope.
    around = {} if path == "$" else dict.fromkeys(ENVELOPE, True)
    others = dict(_OTHER_NAMES.get(type_, {}))
    if not _OF_AN_ADDRESS.isdisjoint(names.folded(name[:_LONGEST_NAME]) for name in members):
        others.pop("state", None)
    found = reading.unread_members({**members, **around}, BODIES[type_], path, others)
    if type_ == OrderCreated.TYPE and members.get(NUMBER) is None:
        found = [
            _unread_id(name, path) for name in members if names.folded(name[:_LONGEST_NAME]) in _IDS
        ] + found
    return found


def _unread_id(name: str, path: str) -> str:
    return (
        f"{path}.{name} is not read: the id of a new order is ours. Your own number of it goes "
        f"into {path}.{NUMBER}."
    )
