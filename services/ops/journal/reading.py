"""Reading the journal.

A stream has no end to ask for. So who reads it writes an empty batch into it, and has read all that
there was when that comes; how much there was is known before.
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
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.journal import batch as batch_of
from shared.bus.contract.journal import unpack

PREFETCH = 100  # some of them hold many others
SILENCE_SECONDS = 30.0
"""After which a broker that sends nothing more is not waited for any longer."""
OFFSET_HEADER = "x-stream-offset"


class NotReadToTheEndError(Exception):
    """The journal was not read to where it ended when the reading began."""


@dataclass(slots=True)
class Entry:
    """One message of the journal.

    Attributes:
        incoming: as it was published.
        key: the routing key that it was published with.
    """

    incoming: Incoming
    key: str

    @property
    def type(self) -> str:
        """Its type; its key where it has none, as what is typed by hand, or says another one."""
        said = self.incoming.properties.get("type")
        return self.key if self.incoming.misnamed else str(said or self.key)


@dataclass(slots=True)
class Extent:
    """What was read of the journal, and what there is of it. Offsets count its messages.

    Attributes:
        first: the offset that the reading began at; None before anything was read.
        next: the offset to be read next.
        end: the offset that it goes to, without it; None before that is known.
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
    """What was written to the journal since a time and before the reading began, oldest first.

    A few messages of shortly before may come along: the broker begins with a chunk of them
    (RabbitMQ, "Streams", x-stream-offset).

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        since: when they were written, with a time zone.
        until: when they happened at the latest, by whoever has stamped them; None: whenever.
        extent: says, at any time, what was read of what there is.
        earlier: types of which all is given that there is, whenever it was written.

    Raises:
        NotReadToTheEndError: the broker fell silent, or has dropped what was to be read next.
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
        heard = time.monotonic()
        while extent.next is None or extent.next < extent.end:
            if not found:
                if time.monotonic() - heard > SILENCE_SECONDS:
                    connection.collect()  # it would not answer to a close
                    raise NotReadToTheEndError(
                        f"the broker has sent nothing for {SILENCE_SECONDS:g} s: read was {extent}"
                    )
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)
                    # Take what else has come, and acknowledge it all at once.
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
            heard = time.monotonic()


def _entries(message: Any, until: datetime | None, only: Collection[str]) -> Iterator[Entry]:
    whole, key = Incoming.of(message), message.delivery_info["routing_key"]
    if not whole.exchange:
        return  # a reader's mark: nobody says anything by the default exchange
    # To decode a week of orders for a few others takes long.
    if only and not any(type_.encode() in whole.body for type_ in only):
        return
    for incoming, own in unpack(whole, key):
        entry, happened = Entry(incoming, own), incoming.stated_time
        # One that does not say when is rather handled once too often.
        is_in_time = until is None or happened is None or happened <= until
        if is_in_time and (not only or entry.type in only):
            yield entry


def _follow(extent: Extent, message: Any) -> None:
    offset = _offset(message)
    if extent.next is None:
        extent.first = extent.next = offset or 0
    elif offset is not None and offset != extent.next:
        # Its segments are dropped by age and size, also while they are read.
        raise NotReadToTheEndError(
            f"offsets {extent.next:,} to {offset - 1:,} are not there any more: read was {extent}"
        )
    extent.next += 1


def _first(connection: Connection, since: datetime) -> int:
    """The offset of the first message that was written since a time.

    There is one, as it writes a mark: of a time to come that is it.
    """
    found: list[Any] = []
    with connection.channel() as channel:
        channel.basic_qos(0, 1, False)
        channel.basic_consume(
            topology.JOURNAL.name, callback=found.append, arguments={OFFSET_HEADER: since}
        )
        _mark(connection)
        heard = time.monotonic()
        while not found and time.monotonic() - heard <= SILENCE_SECONDS:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
    if not found:
        connection.collect()
        raise NotReadToTheEndError(f"the broker has sent nothing for {SILENCE_SECONDS:g} s")
    return _offset(found[0]) or 0


def _end(connection: Connection) -> int:
    """The offset of a message that is written to the journal now."""
    found: list[Any] = []
    with connection.channel() as channel:
        channel.basic_qos(0, MOST, False)
        # From before the mark on, so that it must come.
        channel.basic_consume(
            topology.JOURNAL.name, callback=found.append, arguments={OFFSET_HEADER: "last"}
        )
        mark = _mark(connection)
        heard = time.monotonic()
        while time.monotonic() - heard <= SILENCE_SECONDS:
            for message in found:
                if message.properties.get("message_id") == mark:
                    return _offset(message) or 0
            found.clear()
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
            if found:
                channel.basic_ack(found[-1].delivery_tag, multiple=True)
                heard = time.monotonic()
        connection.collect()
    raise NotReadToTheEndError(
        f"the broker has sent nothing for {SILENCE_SECONDS:g} s: where the journal ends is unknown"
    )


def _mark(connection: Connection) -> str:
    """Write an empty batch into the journal; returns its id."""
    mark = batch_of([], "services.ops", topology.JOURNAL.name)
    publish(
        connection,
        topology.JOURNAL.name,
        [AmqpMessage(mark.body, message_id=mark.message_id, type=mark.type, delivery_mode=2)],
    )
    return mark.message_id


def _offset(message: Any) -> int | None:
    """Where in the stream a message is; None when its headers could not be read so far."""
    offset = (message.properties.get("application_headers") or {}).get(OFFSET_HEADER)
    return offset if isinstance(offset, int) else None
