"""Replaying the journal.

A copy keeps its id and goes to one queue, with a header that says how it is to be taken (see
`shared/bus/contract/message.py`). So a replay is safe to repeat, and safe beside live traffic.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import chain, islice
from uuid import UUID

from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import or_, select
from sqlalchemy.exc import DBAPIError

from services.ops.broker.copying import copy
from services.ops.broker.hold import MOST, BusyError, as_it_is, count, hold, look_through
from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import meeting_place
from services.ops.journal.reading import OFFSET_HEADER, Entry, NotReadToTheEndError
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.retry import LADDER_SECONDS
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.events import EVENT_TYPES, OrderNotPlaced, OrderUnaddressed
from shared.bus.contract.headers import REPLAY_HEADER
from shared.bus.contract.journal import is_unread
from shared.bus.contract.message import Replay
from shared.db.models import OutboxMessage
from shared.ids import derived_id

COPIES = 1_000  # published at once
LOOKED_THROUGH = 1_000_000  # waiting messages, as many as memory should hold
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
        entries: from `reading.read`.
        types: of messages, with `*`; when empty, all those that the queue's bindings bring.
        how: how its consumer is to take them. With `done`, messages that still wait in the queue,
            on the retry ladder or among its dead letters are left out, and so is what is in doubt
            in the outbox: their turn comes yet.
        dry_run: only count.
        progress: called now and then.
        begins: called before the first copy is published; nothing is where it raises.

    Raises:
        TooManyWaitError, BusyError: with `done`, before anything was published.
        NotReadToTheEndError: of `reading.read`; what was published before stays published.
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
