"""What a sender writes of each event, made from the event's own Struct.

All its members but those that the ingress knows: whose it is and, of a new order, its id. So a new
event type of the exchange `intake` is accepted, described and shown as soon as its Struct is there.
What is read is the event itself, and lacks those two until `complete` has set them.
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
from shared.validation import reading
from shared.validation.reading import InvalidValueError

NUMBER = "order_number"
NAMES = ("order_id", NUMBER)
FORMER = "former"
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
    said: Event, account_id: UUID, key: str | None = None, *, is_test: bool = False
) -> tuple[UUID, Event]:
    """Set what the ingress knows of an event that was read; returns the order's id and the event.

    A new order's id is derived from its number, else from the key, and else new; that of an update
    by a number from the number.

    Args:
        said: the event.
        account_id: who says it.
        key: what makes a new order's id the same each time.
        is_test: whether a test secret signed it: then it is about a test order, whose id is
            another under the same number or key.

    Raises:
        BodyError: of an update's id and number each names another order.
    """
    is_new = isinstance(said, OrderCreated)
    if number_of(said) is not UNSET:
        order_id = _by_number(said, account_id, is_new, is_test)
    elif is_new:
        order_id = new_id() if key is None else order_of_key(account_id, key, is_test=is_test)
    else:
        order_id = said.order_id  # type: ignore[attr-defined]  # every event of the intake has one
    force_setattr(said, "order_id", order_id)
    force_setattr(said, "account_id", account_id)
    if not is_test:
        return order_id, said
    if hasattr(said, FORMER):
        force_setattr(said, FORMER, UNSET)  # a test event has it by the name that consumers read
    return order_id, in_test(said)


def number_of(said: Event) -> str | UnsetType:
    """The order number that an event has; UNSET where it has none."""
    return getattr(said, NUMBER, UNSET)


def is_named(said: Event) -> bool:
    """Whether an event says which order it is about, or makes a new one."""
    return (
        isinstance(said, OrderCreated)
        or said.order_id is not UNSET  # type: ignore[attr-defined]
        or number_of(said) is not UNSET
    )


def why_unnamed(type_: str, data: Any) -> list[str]:
    """What to say of plain objects that name no order, where they must.

    Args:
        type_: of the event.
        data: its members.
    """
    if NUMBER not in _names(DATA[type_]) or type_ == OrderCreated.TYPE:
        return []
    if not isinstance(data, Mapping) or any(data.get(name) is not None for name in NAMES):
        return []
    known = _names(DATA[type_])
    meant = {found: None for name in NAMES if (found := reading.misspelt(name, data, known))}
    return [f"{UNNAMED}{''.join(f' `{name:.60}` is there: was it meant?' for name in meant)}"]


def _by_number(said: Event, account_id: UUID, is_new: bool, is_test: bool) -> UUID:
    number = normalised_number(cast("str", number_of(said)))
    if len(number) > LONGEST_NUMBER:
        raise BodyError(f"`order_number` has {len(number)} characters in Unicode's form NFC.")
    order_id = order_of_number(account_id, number, is_test=is_test)
    given: UUID | UnsetType = said.order_id  # type: ignore[attr-defined]
    if not is_new and given is not UNSET and given != order_id:
        raise BodyError(TWO_ORDERS)
    force_setattr(said, NUMBER, number)
    return order_id


def _data(event: type[Event]) -> type[Event]:
    """The event as a sender writes it: what it says of our members is passed over."""
    theirs: list[tuple[str, Any, Any]] = [("account_id", Any, UNSET)]
    if event is OrderCreated:
        theirs.append(("order_id", Any, UNSET))
    elif NUMBER in _names(event):
        theirs.append(("order_id", UUID | UnsetType, UNSET))
    if FORMER in _names(event):
        # By a name that no consumer reads: nothing that a sender writes becomes ours.
        theirs.append((FORMER, Any, msgspec.field(default=UNSET, name="-")))
    made = msgspec.defstruct(
        event.__name__,
        theirs,
        bases=(event,),
        namespace={"__doc__": event.__doc__},
        module=__name__,
        frozen=True,
        kw_only=True,
    )
    return cast("type[Event]", made)


def _described(event: type[Event]) -> type[msgspec.Struct]:
    """The members alone, with the `type` of a flat body before them: only an order needs none.

    What needs one may have the envelope's `timestamp` too.
    """
    ours = {"account_id", FORMER} | ({"order_id"} if event is OrderCreated else set())
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
            description="when it happened, a time with a zone; without it when it came. Send it, "
            "so that a try that comes late does not undo a later update",
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


# None says of itself that it is a test: the secret says it.
_SENT = [
    event
    for event in EVENT_TYPES.values()
    if event.EXCHANGE == INTAKE and not event.OF_PLATFORM and not event.IS_TEST
]
DATA: dict[str, type[Event]] = {event.TYPE: _data(event) for event in _SENT}
"""By type: the event as it is read from what a sender gives."""
BODIES: dict[str, type[msgspec.Struct]] = {event.TYPE: _described(event) for event in _SENT}
"""By type: a whole flat body, as the documentation describes it."""


def _strict(event: type[Event], *envelope: str) -> type[Event]:
    """An event without members that nobody reads, at its top level or in `customer_details`.

    Args:
        event: as it is read.
        envelope: what may stand beside its members: UNSET where it does not.
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
    """Who ordered, and nothing beside."""


FlatOrder = _strict(DATA[OrderCreated.TYPE], "type")
"""An order as it stands alone, and the `type` at its top level."""
ENVELOPE = ("type", "timestamp")
STRICT = {type_: _strict(event) for type_, event in DATA.items()}
"""By type: the same as in `DATA`, without a member that nobody reads."""
STRICT_BODIES = {type_: _strict(event, *ENVELOPE) for type_, event in DATA.items()}
"""By type: the same of a whole flat body."""
