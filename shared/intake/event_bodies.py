"""The body types of order webhooks, derived from the Structs of the events.

A body has all fields of its event but those that the ingress sets: the account and, of a new order,
its id. So a new event type of the exchange `intake` is accepted and documented as soon as its
Struct exists. Decoding yields the event itself without these fields; `complete` sets them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import FieldInfo, force_setattr

from shared.bus.contract.events import (
    EVENT_TYPES,
    CustomerDetails,
    Event,
    OrderCreated,
    in_test,
)
from shared.bus.contract.topology import INTAKE
from shared.ids import LONGEST_NUMBER, new_id, normalised_number, order_of_key, order_of_number
from shared.validation import names
from shared.validation.reading import InvalidValueError

NUMBER = "order_number"
NAMES = ("order_id", NUMBER)
OURS = ("former", "made_at")
"""Fields that only the ingress sets, on orders from a platform."""
DETAILS = "customer_details"
UNNAMED = (
    "The order is not named: give `order_id`, a UUID, or `order_number`, as it was in its order."
)
TWO_ORDERS = (
    "`order_id` is not the order that `order_number` names: leave one of them out. An order that "
    "was sent without a number is named by its id."
)


class BodyError(InvalidValueError):
    """The body does not fit."""


def complete(
    event: Event, account_id: UUID, key: str | None = None, *, is_test: bool = False
) -> tuple[UUID, Event]:
    """Set the account and the order's id of a decoded event; return the id and the event.

    The id is derived from the order number, else of a new order from the key, and else new.

    Args:
        event: the decoded event.
        account_id: of the sender.
        key: the idempotency key, if any.
        is_test: whether a test secret signed it. It is then about a test order, whose id differs
            from that of the live order with the same number or key.

    Raises:
        BodyError: an update's id and number name different orders.
    """
    is_new = isinstance(event, OrderCreated)
    if number_of(event) is not UNSET:
        order_id = _by_number(event, account_id, is_new, is_test)
    elif is_new:
        order_id = new_id() if key is None else order_of_key(account_id, key, is_test=is_test)
    else:
        order_id = event.order_id  # type: ignore[attr-defined]  # all events of `intake` have it
    force_setattr(event, "order_id", order_id)
    force_setattr(event, "account_id", account_id)
    if not is_test:
        return order_id, event
    for name in _ours(event):
        force_setattr(event, name, UNSET)  # the test event has it under the encoded name
    return order_id, in_test(event)


def number_of(event: Event) -> str | UnsetType:
    """Return the order number of an event; UNSET if it has none."""
    return getattr(event, NUMBER, UNSET)


def is_named(event: Event) -> bool:
    """Return whether an event creates an order or names one by id or number."""
    return (
        isinstance(event, OrderCreated)
        or event.order_id is not UNSET  # type: ignore[attr-defined]
        or number_of(event) is not UNSET
    )


def unnamed_faults(type_: str, data: Any) -> list[str]:
    """Return the fault of an update's members that name no order; empty if they do.

    Args:
        type_: of the event.
        data: its members.
    """
    if NUMBER not in _names(DATA[type_]) or type_ == OrderCreated.TYPE:
        return []
    if not isinstance(data, Mapping) or any(data.get(name) is not None for name in NAMES):
        return []
    known = _names(DATA[type_])
    likely = {found: None for name in NAMES if (found := names.misspelt(name, data, known))}
    return [f"{UNNAMED}{''.join(f' `{name:.60}` is there: was it meant?' for name in likely)}"]


def _by_number(event: Event, account_id: UUID, is_new: bool, is_test: bool) -> UUID:
    number = normalised_number(cast("str", number_of(event)))
    if len(number) > LONGEST_NUMBER:
        raise BodyError(f"`order_number` has {len(number)} characters in Unicode's form NFC.")
    order_id = order_of_number(account_id, number, is_test=is_test)
    sent_id: UUID | UnsetType = event.order_id  # type: ignore[attr-defined]
    if not is_new and sent_id is not UNSET and sent_id != order_id:
        raise BodyError(TWO_ORDERS)
    force_setattr(event, NUMBER, number)
    return order_id


_ID = (
    Annotated[
        UUID,
        msgspec.Meta(description=f"a UUID (your own number of an order goes into `{NUMBER}`)"),
    ]
    | UnsetType
)


def _data(event: type[Event]) -> type[Event]:
    """Return the event's type as a sender writes it; values for our own fields are ignored."""
    replaced: list[tuple[str, Any, Any]] = [("account_id", Any, UNSET)]
    if event is OrderCreated:
        replaced.append(("order_id", Any, UNSET))
    elif NUMBER in _names(event):
        replaced.append(("order_id", _ID, UNSET))
    # Encoded under a name that no consumer reads, so that a sender cannot set our fields.
    replaced += [
        (name, Any, msgspec.field(default=UNSET, name="-" * (1 + number)))
        for number, name in enumerate(_ours(event))
    ]
    made = msgspec.defstruct(
        event.__name__,
        replaced,
        bases=(event,),
        namespace={"__doc__": event.__doc__},
        module=__name__,
        frozen=True,
        kw_only=True,
    )
    return cast("type[Event]", made)


def _described(event: type[Event]) -> type[msgspec.Struct]:
    """Return the documented type of a flat body.

    Its first field is `type`, which only a new order does not need; with it the body may have the
    envelope's `timestamp` too.
    """
    ours = {"account_id", *OURS} | ({"order_id"} if event is OrderCreated else set())
    members: list[tuple[str, Any] | tuple[str, Any, object]] = [
        _member(f, event) for f in msgspec.structs.fields(event) if f.name not in ours
    ]
    if event is not OrderCreated:
        type_ = Literal[event.TYPE]  # type: ignore[name-defined]  # known when it runs
        members = [("type", type_), *members, ("timestamp", _HAPPENED, UNSET)]
    return msgspec.defstruct(
        event.__name__,
        members,
        namespace={"__doc__": event.__doc__},
        module=__name__,
        kw_only=True,
    )


_HAPPENED = (
    Annotated[
        datetime,
        msgspec.Meta(
            tz=True,
            description="when it happened, a time with a zone; by default the time of arrival. "
            "Send it, so that a late retry does not undo a later update",
        ),
    ]
    | UnsetType
)
_BY_ID = Annotated[UUID, msgspec.Meta(extra_json_schema={"x-instead-of": NUMBER})] | UnsetType


def _member(field: FieldInfo, event: type[Event]) -> tuple[str, Any] | tuple[str, Any, object]:
    if field.name == "order_id" and NUMBER in _names(event):
        return field.name, _BY_ID, UNSET
    if field.default is msgspec.NODEFAULT:
        return field.name, field.type
    return field.name, field.type, field.default


def _names(struct: type[msgspec.Struct]) -> tuple[str, ...]:
    return struct.__struct_fields__


def _ours(event: Event | type[Event]) -> list[str]:
    return [name for name in OURS if name in event.__struct_fields__]


# Senders send no test types: the secret decides whether an event is a test.
_SENT = [
    event
    for event in EVENT_TYPES.values()
    if event.EXCHANGE == INTAKE and not event.OF_PLATFORM and not event.IS_TEST
]
DATA: dict[str, type[Event]] = {event.TYPE: _data(event) for event in _SENT}
"""By type: the Struct that decodes a sender's event."""
BODIES: dict[str, type[msgspec.Struct]] = {event.TYPE: _described(event) for event in _SENT}
"""By type: a flat body, for the documentation."""


def _strict(event: type[Event], *envelope: str) -> type[Event]:
    """Return a type that refuses unknown members, at its top level and in `customer_details`.

    Args:
        event: the lenient type.
        envelope: names of further allowed members; UNSET if absent.
    """
    members: list[tuple[str, Any] | tuple[str, Any, object]]
    members = [(name, Any, UNSET) for name in envelope]
    if issubclass(event, OrderCreated):
        members.append((DETAILS, _StrictDetails))
    made = msgspec.defstruct(
        event.__name__,
        members,
        bases=(event,),
        module=__name__,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )
    return cast("type[Event]", made)


class _StrictDetails(CustomerDetails, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The customer, without unknown members."""


FlatOrder = _strict(DATA[OrderCreated.TYPE], "type")
"""A flat order, with a field for `type` to detect it."""
ENVELOPE = ("type", "timestamp")
STRICT = {type_: _strict(event) for type_, event in DATA.items()}
"""By type: as `DATA`, but refuses unknown members."""
STRICT_BODIES = {type_: _strict(event, *ENVELOPE) for type_, event in DATA.items()}
"""By type: a flat body that refuses unknown members."""
