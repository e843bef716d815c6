"""How orders and facts get into the journal: many messages as one, beside their way to a queue.

A stream costs the broker as much for a message as a quorum queue does, and what is in the journal
nobody waits for but its confirm. So whoever publishes to `intake` writes what leaves in one turn of
its loop into the journal as one message: half of the broker's work for an order. So does the relay
with facts, whose confirm would wait for the journal's if the broker brought them there.

Form: CloudEvents 1.0, JSON Batch Format; one event is one message.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.message import Message
from shared.ids import new_id

TYPE = "journal.batch"
MAX_BYTES = 1_000_000
"""What a batch may have, where it is more than one event; RabbitMQ 4 takes up to 16 MiB."""


class _Event(msgspec.Struct, omit_defaults=True):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    data: msgspec.Raw
    traceparent: str | None = None
    key: str | None = None  # an extension: the routing key, where it is not the type


_SOURCES = {topology.JOURNAL.name: topology.INTAKE, topology.JOURNAL_OF_FACTS: topology.EVENTS}
"""What an exchange's batches are of, whatever is written in them: see permissions.py."""

_OUTER = 100
"""How much deeper a body may lie in what holds it, and still be read."""

_one_value = msgspec.json.Decoder(msgspec.Raw)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[_Event])


@lru_cache(1_000)
def place(exchange: str, key: str) -> str:
    """Where its publisher writes a message into the journal; empty where he does not.

    All else gets there by a binding of the broker's, or not at all.

    Args:
        exchange: that the message is published to.
        key: its routing key, one of those of our own messages.
    """
    if exchange == topology.INTAKE:
        return topology.JOURNAL.name
    if exchange == topology.EVENTS and any(
        topology.matches(pattern, key) for pattern in topology.JOURNAL_FACTS
    ):
        return topology.JOURNAL_OF_FACTS
    return ""


def check(message: Message) -> None:
    """Make sure that a body which was not encoded by us can be a part of a batch.

    It is put there as it is, and what is not one JSON value (RFC 8259) would make the batch
    unreadable, or be read as other events than itself.

    Raises:
        ValueError: it cannot, and its publisher would write it there.
    """
    if not place(message.exchange, message.routing_key):
        return
    body = message.body
    try:
        _one_value.decode(body)
        if body.count(b"[") + body.count(b"{") > _OUTER:
            _one_value.decode(b"[" * _OUTER + body + b"]" * _OUTER)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"its body is not one JSON value: {error}") from None


def event(message: Message) -> bytes:
    """One message, as a part of a batch; its body is one JSON value, see `check`."""
    return _encoder.encode(
        _Event(
            "1.0",
            message.message_id,
            message.source,
            message.type,
            message.time.isoformat(timespec="milliseconds"),
            message.correlation_id,
            msgspec.Raw(message.body),
            traceparent=message.traceparent,
            key=message.routing_key if message.routing_key != message.type else None,
        )
    )


def batch(events: Sequence[bytes], source: str, exchange: str) -> Message:
    """The message for the journal.

    Args:
        events: from `event`.
        source: who says it.
        exchange: their `place`.
    """
    message_id = str(new_id())
    return Message(
        exchange=exchange,
        routing_key="",
        type=TYPE,
        message_id=message_id,
        body=b"[" + b",".join(events) + b"]",
        correlation_id=message_id,
        time=datetime.now(UTC),
        source=source,
    )


def is_unread(unpacked: Incoming) -> bool:
    """Whether what `unpack` gave is a batch whose messages are not known."""
    is_batch = unpacked.properties.get("type") == TYPE
    return is_batch and unpacked.exchange in _SOURCES


def unpack(incoming: Incoming, key: str) -> Iterator[tuple[Incoming, str]]:
    """The messages of a batch as they were published, with their keys; any other as it is.

    So is one that cannot be read, which is for no queue and must not end a replay: see `is_unread`;
    and one that only says it is a batch: those come by exchanges of their own.

    Args:
        incoming: a message of the journal.
        key: its routing key.
    """
    exchange = _SOURCES.get(incoming.exchange)
    if exchange is None or incoming.properties.get("type") != TYPE:
        # Whoever may publish a command may write any type on it.
        yield incoming, key
        return
    try:
        events = _decoder.decode(incoming.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield incoming, key
        return
    for one in events:
        headers = {
            "ce-specversion": one.specversion,
            "ce-id": one.id,
            "ce-source": one.source,
            "ce-type": one.type,
            "ce-time": one.time,
            "ce-subject": one.subject,
        }
        if one.traceparent:
            headers["traceparent"] = one.traceparent
        properties = {
            "content_type": "application/json",
            "message_id": one.id,
            "type": one.type,
            "correlation_id": one.subject,
        }
        own = one.key or one.type
        yield Incoming(bytes(one.data), properties, headers, exchange, routing_key=own), own
