"""What a sender may write in the body of an order webhook, and the event that it becomes.

Flat, as `order.created`; with a `type` at its top level that says which event it is; or `{type,
timestamp, data}` as Standard Webhooks shapes it. Without that `type` it is a flat order, whatever
else is in it: what a shop names `timestamp` or `data` is none of ours. Members that nobody reads
are passed over, with a warning where one is nearly called as what may be left out: the first
decoder refuses them, so that a body without them pays nothing.

Ids are derived, without a look-up, where there is something to derive them from: an order's from
the account and the sender's own number of it, else from the account and the sender's key
(`Idempotency-Key` or `webhook-id`), the same at each try; a message's from the raw body too. So the
recorder's inbox knows an exact copy, and another body under the same number or key reaches the
recorder, which finds the order id taken and keeps it as a conflict.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET
from msgspec.structs import force_setattr

from shared.bus.contract.events import CREATED, Event, OrderCreated
from shared.bus.contract.message import Message, message_for
from shared.ids import derived_id
from shared.intake import event_bodies, meant
from shared.intake.event_bodies import (
    BODIES,
    DATA,
    DETAILS,
    ENVELOPE,
    STRICT,
    STRICT_BODIES,
    BodyError,
    FlatOrder,
)
from shared.validation import foreign_shapes, json_text, reading, words
from shared.validation.other_forms import without_leap_second
from shared.validation.reading import InvalidValueError

__all__ = ["BODIES", "BodyError", "read"]

SOURCE = "services.ingress"
EPOCH = datetime.fromtimestamp(0, UTC)


class _Envelope(msgspec.Struct):
    """What says which event a body is."""

    type: str | None = None
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    # Not `Raw | None`: msgspec reads that as None alone.
    data: msgspec.Raw = msgspec.Raw()


class _Typed(msgspec.Struct):
    """The same, of a body that may be anything else beside."""

    type: str | None = None


class _Timed(msgspec.Struct):
    timestamp: (
        Annotated[datetime, msgspec.Meta(tz=True, extra={"normalise": without_leap_second})] | None
    ) = None


_Read = tuple[Event, datetime | None, Sequence[str]]
_envelope = msgspec.json.Decoder(_Envelope)
_decoders = {type_: msgspec.json.Decoder(data) for type_, data in DATA.items()}
_strict = {type_: msgspec.json.Decoder(data) for type_, data in STRICT.items()}
_strict_bodies = {type_: msgspec.json.Decoder(body) for type_, body in STRICT_BODIES.items()}
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_flat_order: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FlatOrder)
_REFUSED = (ValueError, RecursionError, OverflowError)
MOST_WARNINGS = 5
_MOST_NAMES, _LONGEST_NAME = 30, 40
"""Of more members, or longer names, nobody is warned: none of ours is nearly so long."""
_DIGIT = re.compile(r"\d")


def read(
    body: bytes,
    account_id: UUID,
    came_at: float,
    traceparent: str | None,
    key: str | None = None,
    *,
    is_test: bool = False,
) -> tuple[UUID, Message]:
    """The order's id and the message that a body stands for; see `read_with_warnings`."""
    order_id, message, _ = read_with_warnings(
        body, account_id, came_at, traceparent, key, is_test=is_test
    )
    return order_id, message


def read_with_warnings(
    body: bytes,
    account_id: UUID,
    came_at: float,
    traceparent: str | None,
    key: str | None = None,
    *,
    is_test: bool = False,
    sha256: str = "",
) -> tuple[UUID, Message, Sequence[str]]:
    """The order's id and the message that a body stands for, and what was hardly meant so.

    Args:
        body: the raw body.
        account_id: who signed it.
        came_at: seconds since 1970, by a clock that all workers agree on: of two updates the later
            counts.
        traceparent: the W3C trace context of the request, where there is one.
        key: what makes the request idempotent, where there is one.
        is_test: whether it is signed by a test secret.
        sha256: the body's hash in hexadecimal digits, where it is known already.

    Raises:
        BodyError: it does not fit; all that is wrong with it.
    """
    now = datetime.fromtimestamp(came_at, UTC)
    said, stamp, warnings = _flat(body) or _shaped(body) or _read_again(body)
    order_id, said = event_bodies.complete(said, account_id, key, is_test=is_test)
    message = message_for(
        said,
        source=SOURCE,
        correlation_id=order_id,
        message_id=_message_id(said, account_id, order_id, key, body, sha256),
        # A stamp from the future would win against every later update. In UTC, since PostgreSQL
        # takes no offset beyond 15:59.
        time=now if stamp is None else min(stamp, now).astimezone(UTC),
        traceparent=traceparent,
    )
    return order_id, message, warnings


def _flat(body: bytes) -> _Read | None:
    """An order without a `type`; None for what has one, or does not fit."""
    if b'"type"' in body:
        return None
    try:
        order = _flat_order.decode(body)
    except _REFUSED:
        return None
    # The name may be written with escapes.
    return (order, None, ()) if order.type is UNSET else None


def _shaped(body: bytes) -> _Read | None:
    """A body whose top level may have a `type`; None for what does not fit."""
    try:
        envelope = _envelope.decode(body)
        if envelope.type is None:
            said, warnings = _decoded(OrderCreated.TYPE, body, "$")
            return said, None, warnings
        if envelope.timestamp is not None and envelope.timestamp < EPOCH:
            return None
        if envelope.type not in DATA:
            return None
        data = bytes(envelope.data)
        said, warnings = _decoded(envelope.type, data or body, "$.data" if data else "$")
        return (said, envelope.timestamp, warnings) if event_bodies.is_named(said) else None
    except _REFUSED:
        return None


def _decoded(type_: str, data: bytes, path: str) -> tuple[Event, Sequence[str]]:
    """An event, and what is beside it and may have been meant."""
    try:
        if path != "$":
            return _strict[type_].decode(data), ()
        said = _strict_bodies[type_].decode(data)
    except _REFUSED:
        said = _decoders[type_].decode(data)
        try:
            members = _members.decode(data)
        except _REFUSED:  # a name that nobody reads is none
            return said, ()
        return said, _warnings(type_, members, path)
    for name in ENVELOPE:
        force_setattr(said, name, UNSET)  # it is no part of the event
    return said, ()


def _warnings(type_: str, members: Mapping[str, Any], path: str) -> Sequence[str]:
    """What was hardly meant so; whatever is there, it refuses nothing."""
    inner = members.get(DETAILS)
    if isinstance(inner, msgspec.Raw):
        try:
            inner = _members.decode(inner)
        except _REFUSED:
            inner = None
    if not isinstance(inner, Mapping):
        inner = {}
    if len(members) + len(inner) > _MOST_NAMES:
        return ()
    return _unread(type_, _named(members), _named(inner), path)


def _named(members: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that a person has chosen: one with a digit in it is another in each body."""
    return tuple(
        name
        for name, value in members.items()
        if value is not None and len(name) <= _LONGEST_NAME and not _DIGIT.search(name)
    )


@lru_cache(maxsize=256)
def _unread(
    type_: str, names: tuple[str, ...], inner: tuple[str, ...], path: str
) -> tuple[str, ...]:
    """The warnings of a shape of bodies: a sender has one for ever, so names are compared once."""
    given: dict[str, Any] = dict.fromkeys(names, True)
    if DETAILS in given:
        given[DETAILS] = dict.fromkeys(inner, True)
    return tuple(reading.left_out(given, DATA[type_], path)[:MOST_WARNINGS])


def _read_again(body: bytes) -> _Read:
    """What the decoders have refused: mended where it can be, else with all its faults."""
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
    hints = foreign_shapes.recognised(value)
    faults: list[str] = []
    said = stamp = None
    try:
        type_ = reading.read(value, _Typed).type
        if type_ is not None and type_ not in DATA:
            known = ", ".join(DATA)
            fault = f"$.type must be one of {known}, and is {words.shortened(type_)}."
            raise BodyError(*hints, fault)
    except InvalidValueError as error:
        raise BodyError(*hints, *error.faults) from None
    data, path = value, "$"
    if type_ is not None:
        try:
            stamp = reading.read(value, _Timed).timestamp
            if stamp is not None and stamp < EPOCH:
                faults.append("$.timestamp lies before 1970.")
        except InvalidValueError as error:
            faults += error.faults
        if value.get("data") is not None:
            data, path = value["data"], "$.data"
        elif (inside := meant.wrapper(value)) is not None and not hints:
            raise BodyError(f"What happened is inside `{inside:.60}`: call that member `data`.")
    else:
        _slip(value, hints)
    faults += event_bodies.why_unnamed(type_ or OrderCreated.TYPE, data)
    try:
        said = reading.read(data, DATA[type_ or OrderCreated.TYPE], path)
    except InvalidValueError as error:
        faults += error.faults
    if said is None or faults:
        raise BodyError(*hints, *faults)
    return said, stamp, _warnings(type_ or OrderCreated.TYPE, data, path)


def left_out(body: bytes) -> list[str]:
    """What a body that fits has beside, and may have been meant: a sentence for each member.

    Args:
        body: the raw body, which `read` takes.
    """
    value = json_text.parse(body)
    type_, data = value.get("type"), value.get("data")
    if type_ is None or data is None:
        return reading.left_out(value, DATA[type_ or OrderCreated.TYPE], "$")
    return reading.left_out(data, DATA[type_], "$.data")


def _slip(value: Mapping[str, Any], hints: Sequence[str]) -> None:
    """Raise where what has no `type` was hardly meant as an order by itself.

    Args:
        value: the body.
        hints: whose it looks like instead.
    """
    type_ = meant.update(value)
    inside = meant.wrapper(value)
    if not hints and (named := meant.type_named(value)) is not None:
        raise BodyError(f"`{named:.60}` says which event it is: call that member `type`.")
    if type_ is not None:
        faults: tuple[str, ...] = ()
        try:
            reading.read(value, DATA[type_])
        except InvalidValueError as error:
            faults = error.faults
        raise BodyError(*hints, f'This looks like an update: add `"type": "{type_}"`.', *faults)
    if inside is not None and not hints:
        raise BodyError(
            f"The order is inside `{inside:.60}`: send what is in it as the body, or "
            '`{"type": "order.created", "data": {…}}`, with its own type where it is an update.'
        )


def _message_id(
    said: Event, account_id: UUID, order_id: UUID, key: str | None, body: bytes, sha256: str
) -> UUID | None:
    is_new = said.TYPE in CREATED
    if is_new and event_bodies.number_of(said) is not UNSET:
        # Whatever the key: the number says which order it is.
        return derived_id(said.TYPE, order_id, sha256 or hashlib.sha256(body).hexdigest())
    if key is not None:
        return derived_id(said.TYPE, account_id, key, sha256 or hashlib.sha256(body).hexdigest())
    # An order without either is created once, so its creation needs no id of its own.
    return order_id if is_new else None
