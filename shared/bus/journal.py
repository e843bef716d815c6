"""How orders get into the journal: many messages as one, beside their way to the recorder.

A stream costs the broker as much for a message as a quorum queue does, and what is in the journal
nobody waits for but its confirm. So whoever publishes to `intake` writes what leaves in one turn of
its loop into the journal as one message: half of the broker's work for an order.

Form: CloudEvents 1.0, JSON Batch Format; one event is one message of `intake`.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from shared.bus import topology
from shared.bus.incoming import Incoming
from shared.bus.message import Message
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


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[_Event])


def keeps(exchange: str) -> bool:
    """Whether what is published to an exchange is written into the journal by its publisher.

    All else gets there by a binding of the broker's.
    """
    return exchange == topology.INTAKE


def event(message: Message) -> bytes:
    """One message, as a part of a batch."""
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
        )
    )


def batch(events: Sequence[bytes], source: str) -> Message:
    """The message for the journal.

    Args:
        events: from `event`.
        source: who says it.
    """
    message_id = str(new_id())
    return Message(
        exchange=topology.JOURNAL.name,
        routing_key="",
        type=TYPE,
        message_id=message_id,
        body=b"[" + b",".join(events) + b"]",
        correlation_id=message_id,
        time=datetime.now(UTC),
        source=source,
    )


def unpack(incoming: Incoming) -> Iterator[Incoming]:
    """The messages of a batch as they were published; any other message as it is.

    So is one that only says it is a batch: it is for no queue, and must not end a replay.
    """
    if incoming.properties.get("type") != TYPE:
        yield incoming
        return
    try:
        events = _decoder.decode(incoming.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        yield incoming
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
        # It can be of no other exchange, whatever is written in it: see permissions.py.
        yield Incoming(bytes(one.data), properties, headers, topology.INTAKE)
