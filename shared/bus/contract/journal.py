"""The journal's batches: many orders or facts in one stream message.

A message costs the broker as much in a stream as in a quorum queue. So publishers to `intake` write
all messages of one turn of the loop to the journal as one, which saves half of the broker's work
for an order. The relay does the same with facts; if the broker routed them, their confirms would
wait for the journal's.

Form: CloudEvents 1.0, JSON Batch Format; one event is one message.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.message import Message
from shared.ids import new_id

TYPE = "journal.batch"
MAX_BYTES = 1_000_000
"""The most bytes of a batch of several events; RabbitMQ 4 accepts up to 16 MiB."""


class _Event(msgspec.Struct, omit_defaults=True):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    data: msgspec.Raw
    traceparent: str | None = None
    key: str | None = None  # an extension: the routing key if it is not the type


_SOURCES = {topology.JOURNAL.name: topology.INTAKE, topology.JOURNAL_OF_FACTS: topology.EVENTS}
"""The exchange of the messages in a batch, by the exchange of the batch."""

_OUTER = 100
"""How many levels deeper a body must be readable, since batches enclose it."""

_one_value = msgspec.json.Decoder(msgspec.Raw)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[_Event])


@lru_cache(1_000)
def place(exchange: str, key: str) -> str:
    """Return the journal exchange to which a message's publisher writes it; empty if none.

    Other messages reach the journal by a binding, or not at all.

    Args:
        exchange: of the message.
        key: its routing key.
    """
    if exchange == topology.INTAKE:
        return topology.JOURNAL.name
    if exchange == topology.EVENTS and any(
        topology.matches(pattern, key) for pattern in topology.JOURNAL_FACTS
    ):
        return topology.JOURNAL_OF_FACTS
    return ""


def check(message: Message) -> None:
    """Check that a body which was not encoded here can be a part of a batch.

    It is embedded unchanged. If it were not one JSON value (RFC 8259), the batch would be
    unreadable, or be read as other events.

    Raises:
        ValueError: it is not, and the message would be journalled.
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
    """Return one message as an event of a batch; its body must be one JSON value, see `check`."""
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
    """Return the journal message of a batch.

    Args:
        events: from `event`.
        source: the publisher.
        exchange: from `place`.
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


def is_unread(unpacked: RawDelivery) -> bool:
    """Whether a message from `unpack` is a batch that could not be read."""
    is_batch = unpacked.properties.get("type") == TYPE
    return is_batch and unpacked.exchange in _SOURCES


def unpack(incoming: RawDelivery, key: str) -> Iterator[tuple[RawDelivery, str]]:
    """Yield the messages of a batch as they were published, with their routing keys.

    A message that is no batch is yielded unchanged, as is one that came by another exchange, or an
    unreadable batch (see `is_unread`), which must not end a replay.

    Args:
        incoming: a message of the journal.
        key: its routing key.
    """
    exchange = _SOURCES.get(incoming.exchange)
    if exchange is None or incoming.properties.get("type") != TYPE:
        # A command may have any type, so the exchange decides.
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
        yield RawDelivery(bytes(one.data), properties, headers, exchange, routing_key=own), own
