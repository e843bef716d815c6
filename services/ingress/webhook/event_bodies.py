"""What a sender writes of each event, made from the event's own Struct.

All its members but those that the ingress knows: whose it is and, of a new order, its id. So a new
event type of the exchange `intake` is accepted, described and shown as soon as its Struct is there.
"""

from typing import ClassVar, Literal, cast
from uuid import UUID

import msgspec

from shared.bus.contract.events import EVENT_TYPES, IN_TEST, Event, OrderCreated
from shared.bus.contract.topology import INTAKE
from shared.ids import new_id, order_id


class EventBody(msgspec.Struct, kw_only=True):
    """The base of what a sender writes."""

    EVENT: ClassVar[type[Event]]

    def event(
        self, account_id: UUID, key: str | None = None, *, is_test: bool = False
    ) -> tuple[UUID, Event]:
        """The order's id, and the event.

        Args:
            account_id: who says it.
            key: what makes a new order's id the same each time; without one it is new.
            is_test: whether a test secret signed it: then it is about a test order, whose id is
                another under the same key.
        """
        members = msgspec.structs.asdict(self)
        members.pop("type", None)  # a flat order's
        if "order_id" not in members:
            members["order_id"] = (
                new_id() if key is None else order_id(account_id, key, is_test=is_test)
            )
        said = IN_TEST[self.EVENT] if is_test else self.EVENT
        return members["order_id"], said(account_id=account_id, **members)


def _data(event: type[Event]) -> type[EventBody]:
    """The members alone, as they stand in `data`."""
    ours = {"account_id", "order_id"} if event is OrderCreated else {"account_id"}
    return _struct(event, [_member(f) for f in msgspec.structs.fields(event) if f.name not in ours])


def _described(event: type[Event]) -> type[EventBody]:
    """With the `type` that says which event it is, as in a flat body: only an order needs none."""
    if event is OrderCreated:
        return DATA[event.TYPE]
    type_ = Literal[event.TYPE]  # type: ignore[name-defined]  # known when it runs
    members = [_member(f) for f in msgspec.structs.fields(DATA[event.TYPE])]
    return _struct(event, [("type", type_), *members])


def _member(field: msgspec.structs.FieldInfo) -> tuple[str, type] | tuple[str, type, object]:
    if field.default is msgspec.NODEFAULT:
        return field.name, field.type
    return field.name, field.type, field.default


def _struct(
    event: type[Event], members: list[tuple[str, type] | tuple[str, type, object]]
) -> type[EventBody]:
    made = msgspec.defstruct(
        event.__name__,
        members,
        bases=(EventBody,),
        namespace={"EVENT": event, "__doc__": event.__doc__},
        module=__name__,
        kw_only=True,
    )
    return cast("type[EventBody]", made)


# None says of itself that it is a test: the secret says it.
_SENT = [e for e in EVENT_TYPES.values() if e.EXCHANGE == INTAKE and not e.IS_TEST]
DATA: dict[str, type[EventBody]] = {event.TYPE: _data(event) for event in _SENT}
"""By type: the members that a sender gives."""
BODIES: dict[str, type[EventBody]] = {event.TYPE: _described(event) for event in _SENT}
"""By type: a whole flat body, as the documentation describes it."""

FlatOrder = cast(
    "type[EventBody]",
    msgspec.defstruct(
        "FlatOrder",
        [("type", str | None, None)],
        bases=(DATA[OrderCreated.TYPE],),
        module=__name__,
        kw_only=True,
    ),
)
"""An order as it stands alone, and the `type` at its top level: None where it says none."""
