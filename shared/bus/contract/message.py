"""A message to publish, and a received one as a handler is given it.

Headers follow CloudEvents 1.0 in binary mode, with the prefix `ce-`.
"""

from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from shared.bus.contract import topology
from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import Event, encode
from shared.ids import new_id
from shared.telemetry import tracing

E = TypeVar("E", bound=Event, covariant=True)

SHORT_STRING_BYTES = 255
"""The limit of an AMQP short string (0-9-1, 4.2.5.3): exchange, routing key, type, ids."""

TOLD = "told"
"""Key of a session's `info`: a list to which a rehearsal's outbox messages are appended."""

MENDED_BY = "mended by "
"""Prefix of the source of a message that ops staff have edited in the outbox; followed by the
database role that edited it."""

Replay = Literal["again", "unnamed", "done"]
"""`again`: handle it although the inbox may know it, if the subscription is `keyed`; otherwise only
if the inbox does not know it.
`unnamed`: the same for a message without an id, of which the inbox cannot know whether it was
handled; effects that must not be repeated are left to a person.
`done`: add it to the inbox, so that it is never handled."""


class Message(msgspec.Struct, frozen=True):
    """One message to publish. A Struct, since making a frozen dataclass takes 2 us."""

    exchange: str
    routing_key: str
    type: str
    message_id: str
    body: bytes
    correlation_id: str
    time: datetime
    source: str
    traceparent: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the AMQP headers: CloudEvents attributes and, if there is one, the trace."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": self.message_id,
            "ce-source": self.source,
            "ce-type": self.type,
            "ce-time": self.time.isoformat(timespec="milliseconds"),
            "ce-subject": self.correlation_id,
        }
        if self.traceparent:
            headers["traceparent"] = self.traceparent
        return headers


class Received(msgspec.Struct, Generic[E], frozen=True):
    """One message as a handler is given it.

    Attributes:
        id: the message id, equal for redeliveries.
        type: such as `order.created`.
        time: when it happened, to the millisecond.
        correlation_id: the id of the order or account.
        data: the decoded body.
        user_id: the author as verified by the broker; see `RawDelivery.actor`.
        person: the author's normalised name; see `RawDelivery.person`.
        attempt: how often it has failed before.
        traceparent: the W3C trace context, if there is one.
        replay: on a copy from the journal, how to handle it.
        happened: whether its effect outside the database has happened and only has to be recorded.
        content_id: a derived id if it has no message id.
        is_redelivered: whether it may have been delivered before.
        is_repeat: whether it has no message id, may have been delivered before, and the last such
            message to take effect was the same, so that it may be this one.
    """

    id: UUID
    type: str
    time: datetime
    correlation_id: str
    data: E
    user_id: str | None = None
    person: str | None = None
    attempt: int = 0
    traceparent: str | None = None
    replay: Replay | None = None
    happened: bool = False
    content_id: UUID | None = None
    is_redelivered: bool = False
    is_repeat: bool = False

    def take_effect_once(self) -> None:
        """Check, before an effect that must not be repeated, that the message is no repetition.

        Raises:
            Permanent: it is or may be one, and a person has to decide.
        """
        if self.replay == "unnamed":
            raise Permanent(
                "it is a copy from the journal of what came without a message_id, so nobody can "
                "tell whether it was carried out: look at how things are; if it is still meant, "
                "send it anew; else discard it"
            )
        if self.is_repeat:
            raise Permanent(
                "it has no message_id and was delivered before, and the same was carried out last: "
                "if it is meant once more, send it again with a message_id; else discard it"
            )


class _Owned(msgspec.Struct):
    account_id: str


_owner = msgspec.json.Decoder(_Owned)


def sharded(message: Message, shards: int) -> Message:
    """Return a message for `intake` with the exchange and key of its account's shard.

    A message without an account id goes to the first queue.
    """
    if message.exchange != topology.INTAKE:
        return message
    try:
        number = topology.shard_of(_owner.decode(message.body).account_id, shards)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return message
    if not number:
        return message
    (binding,) = topology.shards(shards)[number - 1].bindings
    return msgspec.structs.replace(message, exchange=binding.exchange, routing_key=binding.key)


def short_string(text: str) -> str:
    """Return a text cut to the length of an AMQP short string, between two characters."""
    raw = text.encode()
    if len(raw) <= SHORT_STRING_BYTES:
        return text
    return raw[:SHORT_STRING_BYTES].decode(errors="ignore")


def message_for(
    event: Event,
    *,
    source: str,
    correlation_id: UUID | str,
    message_id: UUID | str | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> Message:
    """Return the message of an event.

    Args:
        event: the data; its class has the exchange, the type and the routing key.
        source: the publisher, such as `services.orders`.
        correlation_id: the id of the order or account; cut to the length of a short string, so that
            no fact is lost over it.
        message_id: a new UUIDv7 if not given.
        time: when it happened; now if not given.
        traceparent: the W3C trace context; that of the current span if not given.
    """
    return Message(
        exchange=event.EXCHANGE,
        routing_key=event.TYPE,
        type=event.TYPE,
        message_id=str(message_id or new_id()),
        body=encode(event),
        correlation_id=short_string(str(correlation_id)),
        time=time or datetime.now(UTC),
        source=source,
        traceparent=traceparent or tracing.current(),
    )
