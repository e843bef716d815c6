"""Decodes the body of an order webhook into an event and its message.

A body is a flat order; a flat event with a `type` at its top level; or `{type, timestamp, data}` of
Standard Webhooks. Without a `type` it is a flat order, whatever else it has: a shop's own
`timestamp` or `data` is not ours. Unknown members are ignored, with a warning if the name is close
to that of a missing optional field. The first decoder refuses unknown members, so that bodies
without them do not pay for the check.

Ids are derived without a database query: an order's from the account and the sender's order number,
else from the account and the sender's key (`Idempotency-Key` or `webhook-id`); a message's from
the raw body too. So the recorder's inbox recognises an exact copy, and a different body under the
same number or key is recorded as a conflict.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET
from msgspec.structs import force_setattr

from shared.bus.contract.events import (
    CREATED,
    Event,
    OrderCreated,
)
from shared.bus.contract.message import Message, message_for
from shared.ids import derived_id
from shared.intake import event_bodies, likely_types, unread_members
from shared.intake.event_bodies import (
    BODIES,
    DATA,
    ENVELOPE,
    STRICT,
    STRICT_BODIES,
    BodyError,
    FlatOrder,
)
from shared.validation import foreign_shapes, json_text, phrases, reading
from shared.validation.normalisation import time_of
from shared.validation.reading import InvalidValueError

__all__ = ["BODIES", "BodyError", "read"]

SOURCE = "services.ingress"
EPOCH = datetime.fromtimestamp(0, UTC)


class _Envelope(msgspec.Struct):
    """The members that determine the event type of a body."""

    type: str | None = None
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    # Not `Raw | None`, which msgspec decodes to None only.
    data: msgspec.Raw = msgspec.Raw()


class _Typed(msgspec.Struct):
    """Only the `type` of a body."""

    type: str | None = None


class _Timed(msgspec.Struct):
    timestamp: (
        Annotated[
            datetime, msgspec.Meta(tz=True, extra={"normalise": time_of, "empty_is_none": True})
        ]
        | None
    ) = None


_Read = tuple[Event, datetime | None, Sequence[str]]
_envelope = msgspec.json.Decoder(_Envelope)
_decoders = {type_: msgspec.json.Decoder(data) for type_, data in DATA.items()}
_strict = {type_: msgspec.json.Decoder(data) for type_, data in STRICT.items()}
_strict_bodies = {type_: msgspec.json.Decoder(body) for type_, body in STRICT_BODIES.items()}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_flat_order: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FlatOrder)
_REFUSED = (ValueError, RecursionError, OverflowError)


def read(
    body: bytes,
    account_id: UUID,
    received_at: float,
    traceparent: str | None,
    key: str | None = None,
    *,
    is_test: bool = False,
) -> tuple[UUID, Message]:
    """Return the order's id and the message of a body; see `read_with_warnings`."""
    order_id, message, _ = read_with_warnings(
        body, account_id, received_at, traceparent, key, is_test=is_test
    )
    return order_id, message


def read_with_warnings(
    body: bytes,
    account_id: UUID,
    received_at: float,
    traceparent: str | None,
    key: str | None = None,
    *,
    is_test: bool = False,
    sha256: str = "",
) -> tuple[UUID, Message, Sequence[str]]:
    """Return the order's id, the message and the warnings of a body.

    Args:
        body: the raw body.
        account_id: of the sender.
        received_at: seconds since 1970, by a clock that all workers share: it orders updates.
        traceparent: the W3C trace context of the request, if any.
        key: the idempotency key of the request, if any.
        is_test: whether it is signed by a test secret.
        sha256: the body's hash in hexadecimal digits, if already computed.

    Raises:
        BodyError: it is invalid; has all faults.
    """
    now = datetime.fromtimestamp(received_at, UTC)
    event, timestamp, warnings = _flat(body) or _shaped(body) or _read_leniently(body)
    order_id, event = event_bodies.complete(event, account_id, key, is_test=is_test)
    message = message_for(
        event,
        source=SOURCE,
        correlation_id=order_id,
        message_id=_message_id(event, account_id, order_id, key, body, sha256),
        # A timestamp in the future would win against all later updates. In UTC, because PostgreSQL
        # accepts no offset beyond 15:59.
        time=now if timestamp is None else min(timestamp, now).astimezone(UTC),
        traceparent=traceparent,
    )
    return order_id, message, warnings


def _flat(body: bytes) -> _Read | None:
    """Decode a flat order without a `type`; None if it has one or is invalid."""
    if b'"type"' in body:
        return None
    try:
        order = _flat_order.decode(body)
    except _REFUSED:
        return None
    # `type` may have been written with escapes; and an `order_id` causes a warning.
    return (order, None, ()) if order.type is UNSET and order.order_id is UNSET else None


def _shaped(body: bytes) -> _Read | None:
    """Decode a body whose top level may have a `type`; None if it is invalid."""
    try:
        envelope = _envelope.decode(body)
        if envelope.type is None:
            event, warnings = _decoded(OrderCreated.TYPE, body, "$")
            return event, None, warnings
        if envelope.timestamp is not None and envelope.timestamp < EPOCH:
            return None
        if envelope.type not in DATA:
            return None
        data = bytes(envelope.data)
        event, warnings = _decoded(envelope.type, data or body, "$.data" if data else "$")
        return (event, envelope.timestamp, warnings) if event_bodies.is_named(event) else None
    except _REFUSED:
        return None


def _decoded(type_: str, data: bytes, path: str) -> tuple[Event, Sequence[str]]:
    """Decode an event, and warn of unknown members that may have been meant for a field."""
    strict = _strict_bodies if path == "$" else _strict
    try:
        event = strict[type_].decode(data)
    except _REFUSED:
        event = _decoders[type_].decode(data)
    else:
        for name in ENVELOPE if path == "$" else ():
            force_setattr(event, name, UNSET)  # not a part of the event
        if type_ != OrderCreated.TYPE or event.order_id is UNSET:  # type: ignore[attr-defined]
            return event, ()
    try:
        members = _members.decode(data)
    except _REFUSED:  # an ignored member has an invalid name
        return event, ()
    return event, unread_members.warnings(type_, members, path)


def _read_leniently(body: bytes) -> _Read:
    """Read a body that the decoders have refused: corrected if possible, else with all faults."""
    try:
        value = json_text.parse(body)
    except json_text.NotJsonError as error:
        raise BodyError(str(error)) from None
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        raise BodyError(
            "The body is JSON within a JSON text: it was serialised twice. Send the inner one, and "
            "sign that; it must be a JSON object."
        )
    if not isinstance(value, dict):
        raise BodyError("The body must be a JSON object, and holds one event a request.")
    hints = foreign_shapes.recognise(value)
    faults: list[str] = []
    event = timestamp = None
    try:
        type_ = reading.read(value, _Typed).type
        if type_ is not None and type_ not in DATA:
            known = ", ".join(DATA)
            raise BodyError(f"$.type must be one of {known}, and is {phrases.shortened(type_)}.")
    except InvalidValueError as error:
        type_ = None if hints else likely_types.type_of(value)
        if type_ is None:
            raise BodyError(*hints, *error.faults) from None
        faults += (f"{fault} Was {type_} meant?" for fault in error.faults)
    data, path = value, "$"
    if type_ is not None:
        try:
            timestamp = reading.read(value, _Timed).timestamp
            if timestamp is not None and timestamp < EPOCH:
                faults.append("$.timestamp lies before 1970.")
        except InvalidValueError as error:
            faults += error.faults
        if value.get("data") is not None:
            data, path = value["data"], "$.data"
        elif (inside := likely_types.wrapper(value)) is not None and not hints:
            faults.append(f"What happened is inside `{inside:.60}`: call that member `data`.")
            data, path = value[inside], f"$.{inside:.60}"
    else:
        _check_is_order(value, hints)
    faults += event_bodies.unnamed_faults(type_ or OrderCreated.TYPE, data)
    try:
        event = reading.read(data, DATA[type_ or OrderCreated.TYPE], path)
    except InvalidValueError as error:
        faults += error.faults
    if event is None or faults:
        raise BodyError(*hints, *faults)
    warnings = unread_members.warnings(type_ or OrderCreated.TYPE, data, path)
    return event, timestamp, warnings


def _check_is_order(value: Mapping[str, Any], hints: Sequence[str]) -> None:
    """Raise BodyError if a body without `type` was likely not meant as an order.

    Args:
        value: the body.
        hints: sentences on the system that it looks like.
    """
    type_ = likely_types.update_type(value)
    inside = likely_types.wrapper(value)
    if not hints and (named := likely_types.type_member(value)) is not None:
        data, path = (value, "$") if value.get("data") is None else (value["data"], "$.data")
        raise BodyError(
            f"`{named:.60}` says which event it is: call that member `type`.",
            *_faults(value[named], data, path),
        )
    if type_ is not None:
        faults = _faults(type_, value, "$")
        raise BodyError(*hints, f'This looks like an update: add `"type": "{type_}"`.', *faults)
    if inside is not None and not hints:
        inner = value[inside]
        raise BodyError(
            f"The order is inside `{inside:.60}`: send what is in it as the body, or "
            '`{"type": "order.created", "data": {…}}`, with its own type where it is an update.',
            *_faults(
                likely_types.update_type(inner) or OrderCreated.TYPE, inner, f"$.{inside:.60}"
            ),
        )


def _faults(type_: str, data: Any, path: str) -> list[str]:
    """Return all faults of an event's members."""
    faults = event_bodies.unnamed_faults(type_, data)
    try:
        reading.read(data, DATA[type_], path)
    except InvalidValueError as error:
        faults += error.faults
    return faults


def _message_id(
    event: Event, account_id: UUID, order_id: UUID, key: str | None, body: bytes, sha256: str
) -> UUID | None:
    is_new = event.TYPE in CREATED
    if is_new and event_bodies.number_of(event) is not UNSET:
        # Independent of the key, because the number identifies the order.
        return derived_id(event.TYPE, order_id, sha256 or hashlib.sha256(body).hexdigest())
    if key is not None:
        return derived_id(event.TYPE, account_id, key, sha256 or hashlib.sha256(body).hexdigest())
    # An order without either is created once, so the message can use its id.
    return order_id if is_new else None
