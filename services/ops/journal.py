"""Reading the journal, the stream of all messages of the last seven days, and replaying it.

A copy keeps its id and goes to one queue, with a header that says how it is to be taken (see
`shared/bus/message.py`). So a replay is safe to repeat, and safe beside live traffic.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

from services.ops.copying import copy
from services.ops.publishing import publish
from shared.bus import topology
from shared.bus.incoming import Incoming
from shared.bus.journal import unpack
from shared.bus.message import REPLAY_HEADER, Replay

PREFETCH = 100  # some of them hold many others
COPIES = 1_000  # published at once
# Streams have no end to ask for: it is reached when nothing more comes for so long, in seconds.
END_SECONDS = 2.0
LOOKED_THROUGH = 1_000_000  # waiting messages, as many as memory should hold


class TooManyWaitError(Exception):
    """What waits cannot be told from what is done. Taking one for the other would lose it."""


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
        """Its type; bare commands typed by hand may have none, and are named by their key."""
        return str(self.incoming.properties.get("type") or self.key)


@dataclass(slots=True)
class Summary:
    """What a replay did, or would do.

    Attributes:
        counts: messages by type.
        left: how many still wait somewhere on their own, and were left to that.
    """

    counts: Counter[str] = field(default_factory=Counter)
    left: int = 0


def read(connection: Connection, since: datetime, until: datetime) -> Iterator[Entry]:
    """What was written to the journal since a time, oldest first.

    A few messages of shortly before may come along: the broker begins with a chunk of them
    (RabbitMQ, "Streams", x-stream-offset).

    Args:
        connection: an open kombu connection.
        since: when they were written, with a time zone.
        until: when they happened at the latest.
    """
    found: list[Any] = []
    with connection.channel() as channel:
        channel.basic_qos(0, PREFETCH, False)
        channel.basic_consume(
            topology.JOURNAL.name, callback=found.append, arguments={"x-stream-offset": since}
        )
        heard = time.monotonic()
        while time.monotonic() - heard < END_SECONDS:
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.2)
                # Take what else has come, and acknowledge it all at once.
                while len(found) < PREFETCH // 2:
                    connection.drain_events(timeout=0.001)
            if not found:
                continue
            for message in found:
                key = message.delivery_info["routing_key"]
                for incoming in unpack(Incoming.of(message)):
                    happened = incoming.stated_time
                    # One that does not say when is rather handled once too often.
                    if happened is None or happened <= until:
                        yield Entry(incoming, key or str(incoming.properties["type"]))
            channel.basic_ack(found[-1].delivery_tag, multiple=True)
            found.clear()
            heard = time.monotonic()


def replay(
    connection: Connection,
    queue: topology.Queue,
    entries: Iterator[Entry],
    *,
    types: Collection[str] = (),
    how: Replay = "again",
    dry_run: bool = False,
    progress: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """Publish copies of journal entries to a work queue.

    Args:
        connection: an open kombu connection, another one than the entries are read from.
        queue: where to.
        entries: from `read`.
        types: of messages, with `*`; when empty, all those that the queue's bindings bring.
        how: how its consumer is to take them. With `done`, messages that still wait in the queue,
            on the retry ladder or among its dead letters are left out: their turn comes yet.
        dry_run: only count.
        progress: called now and then.

    Raises:
        TooManyWaitError: with `done`, before anything was published.
        Exception: of kombu or py-amqp; a replay that was broken off can be repeated.
    """
    summary = Summary()
    waiting = _waiting(connection, queue) if how == "done" else set()
    batch: list[AmqpMessage] = []
    for entry in entries:
        if not _is_wanted(entry, queue, types, how):
            continue
        if entry.incoming.properties.get("message_id") in waiting:
            summary.left += 1
            continue
        summary.counts[entry.type] += 1
        if not dry_run:
            batch.append(
                copy(entry.incoming, user=entry.incoming.user_id, extra={REPLAY_HEADER: how})
            )
        if len(batch) >= COPIES:
            publish(connection, queue.name, batch)
            batch = []
            progress(summary)
    if batch:
        publish(connection, queue.name, batch)
    progress(summary)
    return summary


def _is_wanted(entry: Entry, queue: topology.Queue, types: Collection[str], how: Replay) -> bool:
    is_bound = any(
        entry.incoming.exchange == binding.exchange
        and fnmatchcase(entry.key, binding.key.replace("#", "*"))
        for binding in queue.bindings
    )
    if not types:
        return is_bound
    # Of a fact that came by another lane it is not known here whether it still waits.
    return (is_bound or how == "again") and any(
        fnmatchcase(entry.type, pattern) for pattern in types
    )


def _waiting(connection: Connection, queue: topology.Queue) -> set[str]:
    """The ids of what waits for the consumer of a queue. All goes back when the channel closes."""
    ids: set[str] = set()
    for name in (queue.name, queue.dead, *(rung.name for rung in topology.RETRY_LADDER)):
        with connection.channel() as channel:
            while True:
                if len(ids) >= LOOKED_THROUGH:
                    raise TooManyWaitError(f"more than {LOOKED_THROUGH} messages wait for {name}")
                message: Any = channel.basic_get(name)
                if message is None:
                    break
                if name.startswith("retry.") and message.delivery_info["routing_key"] != queue.name:
                    continue
                ids.add(str(message.properties.get("message_id")))
    return ids
