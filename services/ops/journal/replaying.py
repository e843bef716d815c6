"""Replaying the journal into a work queue.

A copy keeps its id, and has a header that says how it is to be handled (see
`shared/bus/contract/message.py`). A replay is therefore safe to repeat, and beside live traffic.
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
from services.ops.broker.hold import MOST, BusyError, count, hold, scan, verbatim_copy
from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import lock_database
from services.ops.journal.reading import OFFSET_HEADER, Entry, NotReadToTheEndError
from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.retry import LADDER_SECONDS
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.events import EVENT_TYPES, OrderNotPlaced, OrderUnaddressed
from shared.bus.contract.headers import REPLAY_HEADER
from shared.bus.contract.journal import is_unread
from shared.bus.contract.message import Replay
from shared.db.models import OutboxMessage
from shared.ids import derived_id

COPIES = 1_000  # per publish
SCANNED_AT_MOST = 1_000_000  # waiting messages, whose ids fit into memory
WAITED = timedelta(seconds=LADDER_SECONDS) + timedelta(hours=1)
"""How long before a time a message may have been written that was still unhandled then: it was on
the retry ladder, or behind others that were."""
AWAITING = frozenset(
    type_
    for type_, event in EVENT_TYPES.items()
    if issubclass(event, OrderNotPlaced | OrderUnaddressed)
)
"""Events from which an order is made when its `OrderPlaced` arrives days later. Changes of orders
without an address are among them; for a known order a repeated change has no effect."""


class TooManyWaitError(Exception):
    """Too many messages wait to tell them from handled ones, without which some could be lost."""


@dataclass(slots=True)
class Summary:
    """The result of a replay.

    Attributes:
        counts: the number of messages by type.
        left: messages that were skipped, since they still wait to be handled.
        in_doubt: messages that were skipped, since they were sent without a confirm and are in the
            outbox to be sent again; it is unknown whether they arrived.
        unread: batches that could not be read, so that their contents are unknown.
        misnamed: messages that were skipped, since their type does not match their routing key.
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
        connection: an open kombu connection, other than the one that `entries` reads from.
        queue: the work queue.
        entries: the entries, from `reading.read`.
        types: message types, with `*` as a wildcard; all that are bound to the queue if empty.
        how: how the consumer handles them. With `done`, messages are skipped that still wait in the
            queue, on the retry ladder or among its dead letters, or are in doubt in the outbox.
        dry_run: whether to only count.
        progress: called after each batch.
        begins: called before the first copy is published; nothing is published if it raises.

    Raises:
        TooManyWaitError, BusyError: with `done`; nothing was published.
        NotReadToTheEndError: from `entries`; what was published stays published.
        Exception: of kombu or py-amqp; an interrupted replay can be repeated.
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

    # The journal's end must be known before the waiting messages are collected: a message that
    # arrives in between is not read, and so need not be skipped.
    begin = list(islice(entries, 1))
    waiting: Collection[UUID] = ()
    in_doubt: Collection[UUID] = ()
    if how == "done":
        # The outbox first: a message that leaves it meanwhile is then found in the queue.
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
    # Whether a fact of another lane still waits is unknown here.
    is_selected = is_bound or (how == "again" and entry.incoming.is_as_published)
    return is_selected and any(fnmatchcase(entry.type, pattern) for pattern in types)


def _in_doubt() -> Collection[UUID]:
    """Return the ids of messages that may be in the journal and nowhere else on the bus.

    The ingress publishes an order before it writes it to the outbox: any order there is in doubt. A
    fact in the outbox is in doubt once it was tried; an untried one that is in the journal was
    published after the backup that the database was restored from.
    """
    database = lock_database()
    if database is None:
        raise BusyError("the database with the outbox, and so what is in doubt, is not known")
    query = (
        select(OutboxMessage.message_id)
        .where(
            or_(OutboxMessage.next_try_at.is_not(None), OutboxMessage.exchange == topology.INTAKE)
        )
        .limit(SCANNED_AT_MOST + 1)
    )
    try:
        with database.connect() as session:
            found = set(session.scalars(query))
    except DBAPIError as error:
        raise BusyError(
            f"what is in doubt in the outbox is unknown: {type(error).__name__}"
        ) from None
    if len(found) > SCANNED_AT_MOST:
        raise TooManyWaitError(f"more than {SCANNED_AT_MOST:,} messages are in doubt in the outbox")
    return found


def _waiting(connection: Connection, queue: topology.Queue) -> Collection[UUID]:
    """Return the ids of messages that still wait to be handled by a queue's consumer.

    The ladder comes first: a message that becomes due meanwhile is then found in the queue.
    """
    ids: set[UUID] = set()

    def note(incoming: RawDelivery) -> None:
        if not incoming.happened:
            ids.add(incoming.message_id)

    def see(incoming: RawDelivery, publisher: str) -> AmqpMessage:
        note(incoming)
        return verbatim_copy(incoming, publisher)

    for name in (*(delay.name for delay in topology.RETRY_DELAYS), queue.dead):
        with hold(connection, name) as held:
            if held.ready > MOST:
                raise TooManyWaitError(f"more than {MOST:,} messages wait in {name}")
            if not held.alone:
                raise BusyError(f"another tool may have messages of {name} in hand")
            while messages := held.take(COPIES):
                for message in messages:
                    is_dead = name == queue.dead
                    if is_dead or message.delivery_info["routing_key"] == queue.name:
                        note(RawDelivery.of(message, believed(queue.name, user_of(connection))))
    parts = declaration.parts(connection, queue)
    if sum(count(connection, name) for name in parts) + len(ids) > SCANNED_AT_MOST:
        raise TooManyWaitError(f"more than {SCANNED_AT_MOST:,} messages wait for {queue.name}")
    for name in parts:
        scan(connection, name, see)
    return ids


def _copy(incoming: RawDelivery, publisher: str, how: Replay) -> AmqpMessage:
    content = incoming.content_id
    named = {}
    if content is not None:
        # The same id at each replay, so that the inbox drops a repeated one.
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
