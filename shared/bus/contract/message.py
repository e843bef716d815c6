"""A message as it travels: properties, CloudEvents headers, body; and as a handler sees it.

Headers follow CloudEvents 1.0 in binary mode, with the prefix `ce-`.
"""

from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar
from uuid import UUID

import msgspec

from shared.bus.contract.errors import Permanent
from shared.bus.contract.events import Event, encode
from shared.ids import new_id
from shared.telemetry import tracing

E = TypeVar("E", bound=Event, covariant=True)

SHORT_STRING_BYTES = 255
"""What a short string of AMQP 0-9-1 holds (4.2.5.3): exchange, routing key, type, ids."""

TOLD = "told"
"""In a session's `info`: a list that is given what is left for the relay, too; of a rehearsal."""

MENDED_BY = "mended by "
"""What the source of a message begins with whose words ops staff have changed in the outbox: they
are not those of the service that wrote it. The database role follows that changed them."""

Replay = Literal["again", "unnamed", "done"]
"""`again`: handle it although the inbox may know it, where its effects know by themselves what
there is; elsewhere, where it would be done twice, only if the inbox does not know it.
`unnamed`: the same of one that came without an id, of which no inbox can tell whether it was
handled: what must not be done twice is left to a person.
`done`: enter it in the inbox, so that it is never handled; do nothing else."""


class Message(msgspec.Struct, frozen=True):
    """One message to publish. A Struct, since a frozen dataclass takes 2 us to make."""

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
        """The AMQP headers: CloudEvents attributes, and the trace where there is one."""
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
    """One message as a handler sees it.

    Attributes:
        id: the message's id; a redelivery has the same.
        type: its type, such as `order.created`.
        time: when it happened, to the millisecond.
        correlation_id: the order or account that the story is about.
        data: the decoded body.
        user_id: who published it, as far as the broker has verified; see `Incoming.actor`.
        person: the one who wanted it, in one spelling; see `Incoming.person`.
        attempt: how many times it was tried before and failed.
        traceparent: the W3C trace context it travels in, where there is one.
        replay: on a copy from the journal, how it is to be taken.
        happened: whether its effect outside the database has happened, and is to be written down.
        content_id: where it came without an id, what it can be recognised by.
        is_redelivered: whether it may have been delivered before.
        is_repeat: whether it came without an id, may have been delivered before, and the last such
            message to take effect was the same: nobody can tell whether it was this one.
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
        """Called by a handler before an effect that must not come twice.

        Raises:
            Permanent: it is a repeat, or may be one, so a person must say what is meant.
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


def short_string(text: str) -> str:
    """As much of a text as a short string of AMQP holds, cut between two characters."""
    raw = text.encode()
    if len(raw) <= SHORT_STRING_BYTES:
        return text
    return raw[:SHORT_STRING_BYTES].decode(errors="ignore")


def message_for(
    event: Event,
    *,
    source: str,
    correlation_id: UUID | str,
    message_id: UUID | None = None,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> Message:
    """The message that carries `event`.

    Args:
        event: the data; its class names exchange, type and routing key.
        source: who says it, such as `services.orders`.
        correlation_id: the order or account that the story is about; what is too long for AMQP is
            cut, since a fact must not be lost over what it is filed under.
        message_id: its id; a new UUIDv7 when not given.
        time: when it happened; now when not given.
        traceparent: the W3C trace context to hand on; that of the current span when not given.
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
