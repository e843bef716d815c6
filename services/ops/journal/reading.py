"""Reading the journal.

A stream does not tell where it ends. A reader therefore publishes an empty batch to it, as a mark,
and has read everything when the mark arrives; the mark's offset gives the amount in advance.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

from services.ops.broker.hold import MOST
from services.ops.broker.publishing import publish
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.journal import batch as batch_of
from shared.bus.contract.journal import unpack

PREFETCH = 100  # stream messages, some of which are batches of many
SILENCE_SECONDS = 30.0
"""Timeout for a broker that delivers nothing more."""
OFFSET_HEADER = "x-stream-offset"


class NotReadToTheEndError(Exception):
    """The journal could not be read up to its end at the start of the reading."""


@dataclass(slots=True)
class Entry:
    """One message of the journal.

    Attributes:
        incoming: the message, as published.
        key: its original routing key.
    """

    incoming: RawDelivery
    key: str

    @property
    def type(self) -> str:
        """Its type; its routing key if it has none, or one that does not match the key."""
        stated = self.incoming.properties.get("type")
        return self.key if self.incoming.misnamed else str(stated or self.key)


@dataclass(slots=True)
class Extent:
    """The progress of reading the journal, in offsets, which count its messages.

    Attributes:
        first: the first offset that was read; None before the first message.
        next: the next offset to read.
        end: the offset to stop before; None until it is known.
    """

    first: int | None = None
    next: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        if self.end is None:
            return "nothing of the journal"
        if self.first is None or self.next is None:
            return f"nothing of the journal, which goes to offset {self.end:,}"
        there, done = max(self.end - self.first, 0), min(self.next, self.end) - self.first
        return f"{max(done, 0):,} of the journal's {there:,} messages from offset {self.first:,} on"


def read(
    connection: Connection,
    since: datetime,
    until: datetime | None = None,
    extent: Extent | None = None,
    *,
    earlier: Collection[str] = (),
) -> Iterator[Entry]:
    """Yield the messages written to the journal between a time and the start of the reading.

    They come oldest first. A few slightly older messages may be included, since the broker starts
    with a whole chunk (RabbitMQ, "Streams", x-stream-offset).

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        since: the earliest time of writing, with a time zone.
        until: the latest time of the event, as its message states; None for no limit.
        extent: updated with the progress.
        earlier: types to yield from the whole journal, regardless of `since`.

    Raises:
        NotReadToTheEndError: the broker delivers nothing more, or has dropped the next messages.
    """
    extent = extent if extent is not None else Extent()
    found: list[Any] = []
    with connection.channel() as channel:
        channel.basic_qos(0, PREFETCH, False)
        channel.basic_consume(
            topology.JOURNAL.name,
            callback=found.append,
            arguments={OFFSET_HEADER: "first" if earlier else since},
        )
        extent.end = _end(connection)
        begin = _first(connection, since) if earlier else 0
        last = time.monotonic()
        while extent.next is None or extent.next < extent.end:
            if not found:
                if time.monotonic() - last > SILENCE_SECONDS:
                    connection.collect()  # it would not answer to a close
                    raise NotReadToTheEndError(
                        f"the broker has sent nothing for {SILENCE_SECONDS:g} s: read was {extent}"
                    )
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)
                    # Take what else has arrived, to acknowledge it together.
                    while len(found) < PREFETCH // 2:
                        connection.drain_events(timeout=0.001)
                continue
            for message in found:
                _follow(extent, message)
                if extent.next is None or extent.next > extent.end:
                    continue
                is_early = extent.next <= begin
                yield from _entries(message, until, earlier if is_early else ())
            channel.basic_ack(found[-1].delivery_tag, multiple=True)
            found.clear()
            last = time.monotonic()


def _entries(message: Any, until: datetime | None, only: Collection[str]) -> Iterator[Entry]:
    stored, key = RawDelivery.of(message), message.delivery_info["routing_key"]
    if not stored.exchange:
        return  # a mark: only readers publish to the journal through the default exchange
    # Skips the slow decoding of batches without any of the wanted types.
    if only and not any(type_.encode() in stored.body for type_ in only):
        return
    for incoming, own in unpack(stored, key):
        entry, happened = Entry(incoming, own), incoming.stated_time
        # Handling a message without a time twice is safer than skipping it.
        is_in_time = until is None or happened is None or happened <= until
        if is_in_time and (not only or entry.type in only):
            yield entry


def _follow(extent: Extent, message: Any) -> None:
    offset = _offset(message)
    if extent.next is None:
        extent.first = extent.next = offset or 0
    elif offset is not None and offset != extent.next:
        # Segments are dropped by age and size, also during reading.
        raise NotReadToTheEndError(
            f"offsets {extent.next:,} to {offset - 1:,} are not there any more: read was {extent}"
        )
    extent.next += 1


def _first(connection: Connection, since: datetime) -> int:
    """Return the offset of the first message written since a time.

    The mark guarantees that one exists, also if the time is in the future.
    """
    found: list[Any] = []
    with connection.channel() as channel:
        channel.basic_qos(0, 1, False)
        channel.basic_consume(
            topology.JOURNAL.name, callback=found.append, arguments={OFFSET_HEADER: since}
        )
        _mark(connection)
        last = time.monotonic()
        while not found and time.monotonic() - last <= SILENCE_SECONDS:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
    if not found:
        connection.collect()
        raise NotReadToTheEndError(f"the broker has sent nothing for {SILENCE_SECONDS:g} s")
    return _offset(found[0]) or 0


def _end(connection: Connection) -> int:
    """Return the offset of a mark that is written to the journal now."""
    found: list[Any] = []
    with connection.channel() as channel:
        channel.basic_qos(0, MOST, False)
        # Consuming starts before the mark is published, so the mark must arrive.
        channel.basic_consume(
            topology.JOURNAL.name, callback=found.append, arguments={OFFSET_HEADER: "last"}
        )
        mark = _mark(connection)
        last = time.monotonic()
        while time.monotonic() - last <= SILENCE_SECONDS:
            for message in found:
                if message.properties.get("message_id") == mark:
                    return _offset(message) or 0
            found.clear()
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
            if found:
                channel.basic_ack(found[-1].delivery_tag, multiple=True)
                last = time.monotonic()
        connection.collect()
    raise NotReadToTheEndError(
        f"the broker has sent nothing for {SILENCE_SECONDS:g} s: where the journal ends is unknown"
    )


def _mark(connection: Connection) -> str:
    """Publish an empty batch to the journal; returns its id."""
    mark = batch_of([], "services.ops", topology.JOURNAL.name)
    publish(
        connection,
        topology.JOURNAL.name,
        [AmqpMessage(mark.body, message_id=mark.message_id, type=mark.type, delivery_mode=2)],
    )
    return mark.message_id


def _offset(message: Any) -> int | None:
    """Return a message's offset in the stream; None if its headers are unreadable."""
    offset = (message.properties.get("application_headers") or {}).get(OFFSET_HEADER)
    return offset if isinstance(offset, int) else None
