"""Reading the journal, the stream of all messages of the last seven days, and replaying it.

A copy keeps its id and goes to one queue, with a header that says how it is to be taken (see
`shared/bus/contract/message.py`). So a replay is safe to repeat, and safe beside live traffic.

A stream has no end to ask for. So who reads it writes an empty batch into it, and has read all that
there was when that comes; how much there was is known before.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import chain, islice
from typing import Any
from uuid import UUID

from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import or_, select
from sqlalchemy.exc import DBAPIError

from services.ops.broker.copying import copy
from services.ops.broker.hold import MOST, BusyError, as_it_is, count, hold, look_through
from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import meeting_place
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.retry import LADDER_SECONDS
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.events import EVENT_TYPES, OrderNotPlaced, OrderUnaddressed
from shared.bus.contract.headers import REPLAY_HEADER
from shared.bus.contract.journal import batch as batch_of
from shared.bus.contract.journal import is_unread, unpack
from shared.bus.contract.message import Replay
from shared.db.models import OutboxMessage
from shared.ids import derived_id

PREFETCH = 100  # some of them hold many others
COPIES = 1_000  # published at once
SILENCE_SECONDS = 30.0
"""After which a broker that sends nothing more is not waited for any longer."""
LOOKED_THROUGH = 1_000_000  # waiting messages, as many as memory should hold
OFFSET_HEADER = "x-stream-offset"
WAITED = timedelta(seconds=LADDER_SECONDS) + timedelta(hours=1)
"""How long before a time a message may have been written that was not handled by then: on the
ladder all the time, or behind others that were."""
AWAITING = frozenset(
    type_
    for type_, event in EVENT_TYPES.items()
    if issubclass(event, OrderNotPlaced | OrderUnaddressed)
)
"""What makes an order of the `OrderPlaced` that comes days later. A change of an order that has no
address is among them: of one that is known it does nothing a second time."""


class TooManyWaitError(Exception):
    """What waits cannot be told from what is done. Taking one for the other would lose it."""


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
class Summary:
    """What a replay did, or would do.

    Attributes:
        counts: messages by type.
        left: how many still wait somewhere on their own, and were left to that.
        in_doubt: how many were sent, never confirmed and wait in the outbox to be sent again: they
            are neither told nor untold, and were left to that.
        unread: how many batches of messages cannot be read, so that what is in them is unknown.
        misnamed: how many say a type that is not of their key, and were left out.
    """

    counts: Counter[str] = field(default_factory=Counter)
    left: int = 0
    in_doubt: int = 0
    unread: int = 0
    misnamed: int = 0


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
    until: datetime,
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
        until: when they happened at the latest.
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


def _entries(message: Any, until: datetime, only: Collection[str]) -> Iterator[Entry]:
    whole, key = Incoming.of(message), message.delivery_info["routing_key"]
    if not whole.exchange:
        return  # a reader's mark: nobody says anything by the default exchange
    # To decode a week of orders for a few others takes long.
    if only and not any(type_.encode() in whole.body for type_ in only):
        return
    for incoming, own in unpack(whole, key):
        entry, happened = Entry(incoming, own), incoming.stated_time
        # One that does not say when is rather handled once too often.
        if (not only or entry.type in only) and (happened is None or happened <= until):
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


def replay(
    connection: Connection,
    queue: topology.Queue,
    entries: Iterator[Entry],
    *,
    types: Collection[str] = (),
    how: Replay = "again",
    dry_run: bool = False,
    progress: Callable[[Summary], None] = lambda _: None,
    begins: Callable[[], None] = lambda: None,
) -> Summary:
    """Publish copies of journal entries to a work queue.

    Args:
        connection: an open kombu connection, another one than the entries are read from.
        queue: where to.
        entries: from `read`.
        types: of messages, with `*`; when empty, all those that the queue's bindings bring.
        how: how its consumer is to take them. With `done`, messages that still wait in the queue,
            on the retry ladder or among its dead letters are left out, and so is what is in doubt
            in the outbox: their turn comes yet.
        dry_run: only count.
        progress: called now and then.
        begins: called before the first copy is published; nothing is where it raises.

    Raises:
        TooManyWaitError, BusyError: with `done`, before anything was published.
        NotReadToTheEndError: of `read`; what was published before stays published.
        Exception: of kombu or py-amqp; a replay that was broken off can be repeated.
    """
    summary = Summary()
    batch: list[AmqpMessage] = []

    has_begun = False

    def flush() -> None:
        nonlocal has_begun
        if batch:
            if not has_begun:
                begins()
                has_begun = True
            publish(connection, queue.name, batch)
            batch.clear()
        progress(summary)

    # Where the journal ends is settled before it is seen what waits: what comes between the two is
    # not read, and could not have been seen.
    begin = list(islice(entries, 1))
    waiting: Collection[UUID] = ()
    in_doubt: Collection[UUID] = ()
    if how == "done":
        # First: what is confirmed and leaves the outbox while this goes on is in the queue by then.
        in_doubt = _in_doubt()
        waiting = _waiting(connection, queue)
    try:
        for entry in chain(begin, entries):
            if is_unread(entry.incoming):
                summary.unread += 1
            if entry.incoming.misnamed:
                # Its copy would be taken for what it says.
                summary.misnamed += 1
                continue
            if not _is_wanted(entry, queue, types, how):
                continue
            if waiting and entry.incoming.message_id in waiting:
                summary.left += 1
                continue
            if in_doubt and entry.incoming.message_id in in_doubt:
                summary.in_doubt += 1
                continue
            summary.counts[entry.type] += 1
            if not dry_run:
                batch.append(_copy(entry.incoming, user_of(connection), how))
            if len(batch) >= COPIES:
                flush()
    except NotReadToTheEndError:
        flush()
        raise
    flush()
    return summary


def _is_wanted(entry: Entry, queue: topology.Queue, types: Collection[str], how: Replay) -> bool:
    is_bound = topology.takes(queue, entry.incoming.exchange, entry.key)
    if not types:
        return is_bound
    # Of a fact that came by another lane it is not known here whether it still waits.
    is_meant = is_bound or (how == "again" and entry.incoming.is_as_published)
    return is_meant and any(fnmatchcase(entry.type, pattern) for pattern in types)


def _in_doubt() -> Collection[UUID]:
    """The ids of what may be in the journal and nowhere else on the bus.

    A fact in the outbox that was never tried and is in the journal all the same was told after the
    backup that the database is from. An order there was sent by the ingress before it was written.
    """
    place = meeting_place()
    if place is None:
        raise BusyError("no database is known, in whose outbox may be what is in doubt")
    query = (
        select(OutboxMessage.message_id)
        .where(
            or_(OutboxMessage.next_try_at.is_not(None), OutboxMessage.exchange == topology.INTAKE)
        )
        .limit(LOOKED_THROUGH + 1)
    )
    try:
        with place.connect() as books:
            found = set(books.scalars(query))
    except DBAPIError as error:
        raise BusyError(
            f"what is in doubt in the outbox is unknown: {type(error).__name__}"
        ) from None
    if len(found) > LOOKED_THROUGH:
        raise TooManyWaitError(f"more than {LOOKED_THROUGH:,} messages are in doubt in the outbox")
    return found


def _waiting(connection: Connection, queue: topology.Queue) -> Collection[UUID]:
    """The ids of what waits for the consumer of a queue to be done.

    The ladder first: what is due while this goes on comes into the queue, and is seen there.
    """
    ids: set[UUID] = set()

    def note(incoming: Incoming) -> None:
        if not incoming.happened:
            ids.add(incoming.message_id)

    def see(incoming: Incoming, publisher: str) -> AmqpMessage:
        note(incoming)
        return as_it_is(incoming, publisher)

    for name in (*(rung.name for rung in topology.RETRY_LADDER), queue.dead):
        with hold(connection, name) as held:
            if held.ready > MOST:
                raise TooManyWaitError(f"more than {MOST:,} messages wait in {name}")
            if not held.alone:
                raise BusyError(f"another tool may have messages of {name} in hand")
            while messages := held.take(COPIES):
                for message in messages:
                    is_rung = name != queue.dead
                    if not is_rung or message.delivery_info["routing_key"] == queue.name:
                        note(Incoming.of(message, believed(queue.name, user_of(connection))))
    if count(connection, queue.name) + len(ids) > LOOKED_THROUGH:
        raise TooManyWaitError(f"more than {LOOKED_THROUGH:,} messages wait for {queue.name}")
    look_through(connection, queue.name, see)
    return ids


def _copy(incoming: Incoming, publisher: str, how: Replay) -> AmqpMessage:
    content = incoming.content_id
    named = {}
    if content is not None:
        # The same at each replay: what had nothing to do once is done with.
        offset = incoming.headers.get(OFFSET_HEADER)
        named["message_id"] = str(derived_id("journal", content, incoming.stated_time, offset))
    return copy(
        incoming,
        publisher,
        user=incoming.user_id,
        person=incoming.acting,
        properties=named,
        extra={REPLAY_HEADER: "unnamed" if named and how == "again" else how},
    )
