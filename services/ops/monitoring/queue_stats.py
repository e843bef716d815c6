"""Figures of every queue, from plain AMQP and the services' heartbeats.

A passive declare returns a queue's ready messages and consumers, for the delay queues of retries
too. Every ten seconds the services report their unacknowledged and handled messages, and the time
of the newest handled one (table `service_heartbeats`). Why not the management API:
docs/decisions.md.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from amqp.exceptions import AccessRefused, NotFound
from kombu import Connection

from services.ops.monitoring.heartbeats import FRESH, Beat, QueueBeat
from services.ops.monitoring.order_flow import Refusals
from shared.bus.broker.queue_counts import Count, NotKnownError
from shared.bus.broker.queue_counts import of as count_of
from shared.bus.contract import topology

PATIENCE = 2.0  # seconds for the answers of all queues: the next sample comes soon
RATE_WINDOW = timedelta(seconds=60)
CLOSE = timedelta(seconds=15)
"""Two bounds of an age that differ by less are shown as one figure."""

Bound = Literal["about", "at most", "at least"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The state of all queues and services at one time.

    Attributes:
        at: when it was taken.
        counts: by queue; without missing and unresponsive queues.
        shards: the counts of each shard, where `intake` has several; `counts` has their sum.
        silent: the unresponsive queues.
        beats: the services' last heartbeats; None if the database did not answer.
        outbox: messages that wait for the relay; None if the database did not answer in time. A
            lower bound beyond `shared.bus.outbox.COUNTED`.
        outbox_since: since when the oldest of them waits.
        parked: messages of the outbox that cannot be published unmodified; bounded likewise.
        parked_since: since when the first of these is parked.
        emails: refusals among the newest emails; None if the database did not answer in time.
        dead_since: when the first dead letter died, by dead queue, where known.
        alarm: why the broker takes no messages, by its own words; None while it does.
        broker_error: why the broker could not be sampled; then there are no counts.
        is_refused: whether the reason is a missing right of the user.
        database_error: why the database could not be read, or not be written.
        is_read_only: whether the reason is that it takes no writes.
    """

    at: datetime
    counts: Mapping[str, Count] = field(default_factory=dict)
    shards: Mapping[str, Count] = field(default_factory=dict)
    silent: Collection[str] = ()
    beats: Sequence[Beat] | None = None
    outbox: int | None = None
    outbox_since: datetime | None = None
    parked: int | None = None
    parked_since: datetime | None = None
    emails: Refusals | None = None
    dead_since: Mapping[str, datetime] = field(default_factory=dict)
    alarm: str | None = None
    broker_error: str | None = None
    is_refused: bool = False
    database_error: str | None = None
    is_read_only: bool = False

    @property
    def has_database(self) -> bool:
        """Whether the database answered the queries."""
        return self.database_error is None or self.is_read_only

    def messages(self, queue: str) -> int | None:
        """Return the ready and unacknowledged messages of a queue; None if unknown."""
        count = self.counts.get(queue)
        return None if count is None else count.ready + (self.unacked(queue) or 0)

    def unacked(self, queue: str) -> int | None:
        """Return the unacknowledged messages of a queue; None if no service reports them."""
        return _sum(figures.unacked for figures in self._fresh(queue))

    def out_rate(self, queue: str) -> float | None:
        """Return the handled messages per second; None if no service reports them."""
        rates = [figures.rate for figures in self._fresh(queue)]
        return sum(rates) if rates else None

    def handled(self, queue: str) -> dict[str, int]:
        """Return how many messages each instance has handled since its start."""
        return {
            beat.instance: beat.queues[queue].handled
            for beat in self.beats or ()
            if queue in beat.queues
        }

    def reached(self, queue: str) -> datetime | None:
        """Return the time of the newest handled message of a queue, however old the report."""
        times = [beat.queues[queue].reached for beat in self.beats or () if queue in beat.queues]
        return max((time for time in times if time is not None), default=None)

    def reached_of(self, queue: str, part: str) -> datetime | None:
        """Return the time of the newest handled message of one of its shards."""
        times = [
            b.queues[queue].reached_of(queue, part) for b in self.beats or () if queue in b.queues
        ]
        return max((time for time in times if time is not None), default=None)

    def _fresh(self, queue: str) -> list[QueueBeat]:
        return [
            beat.queues[queue]
            for beat in self.beats or ()
            if queue in beat.queues and self.at - beat.seen_at < FRESH
        ]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one queue; None where unknown.

    Attributes:
        name: the queue.
        ready: ready messages; None if the queue is missing or unresponsive.
        unacked: unacknowledged messages, up to ten seconds ago.
        consumers: its consumers.
        in_rate: published messages per second, over the last minute.
        out_rate: handled messages per second, over the last ten seconds.
        oldest_seconds: the age of its first message.
        oldest_bound: how exact that age is.
        dead: dead letters of a work queue; while a tool holds them, their last known number.
        silent: whether it is declared and unresponsive.
    """

    name: str
    ready: int | None
    unacked: int | None = None
    consumers: int | None = None
    in_rate: float | None = None
    out_rate: float | None = None
    oldest_seconds: float | None = None
    oldest_bound: Bound | None = None
    dead: int | None = None
    silent: bool = False


class Counts(NamedTuple):
    """The broker's counts of the queues; the attributes are those of a `Sample`."""

    counts: dict[str, Count]
    shards: dict[str, Count]
    silent: frozenset[str]


def counts(connection: Connection, shards: int = 1) -> Counts:
    """Count the messages and consumers of each queue of the topology.

    Shards count as one queue: with the sum of their messages, and the fewest consumers that one of
    them has. It is missing if one of them is.

    Args:
        connection: an open kombu connection.
        shards: the number of queues of `intake`.

    Raises:
        AccessRefused: the user has no right to a queue that is no shard.
    """
    found: dict[str, Count] = {}
    silent: set[str] = set()
    channel = connection.channel()
    deadline = time.monotonic() + PATIENCE
    parts = topology.shards(shards)
    for queue in (*topology.QUEUES, *parts):
        try:
            found[queue.name] = count_of(channel, queue.name, deadline - time.monotonic())
        except NotKnownError:
            silent.add(queue.name)
        except NotFound:  # closes the channel, which py-amqp reopens
            continue
        except AccessRefused:
            # Rights from before the shards were declared must not hide all other queues.
            if queue not in parts:
                raise
    channel.close()
    if not parts:
        return Counts(found, {}, frozenset(silent))
    names = [topology.ORDERS_INTAKE.name, *(queue.name for queue in parts)]
    by_shard = {name: found.pop(name) for name in names if name in found}
    if len(by_shard) == len(names):
        found[names[0]] = Count(
            sum(count.ready for count in by_shard.values()),
            min(count.consumers for count in by_shard.values()),
        )
    return Counts(found, by_shard, frozenset(map(topology.whole, silent)))


def figures(samples: Sequence[Sample]) -> list[Figures]:
    """Return the current figures of every queue. A pure function.

    Args:
        samples: oldest first; at least one, but rates and ages need some minutes of them.
    """
    return [_figures(samples, queue) for queue in topology.QUEUES]


def unbroken_since(
    samples: Sequence[Sample],
    longest: timedelta,
    is_known: Callable[[Sample], bool],
) -> datetime:
    """Return since when samples followed each other without a gap, up to the newest.

    Args:
        samples: oldest first.
        longest: the longest time between two samples that is no gap.
        is_known: whether a sample contains the wanted data; one without is a gap.
    """
    since = samples[-1].at
    for sample in reversed(samples):
        if not is_known(sample) or since - sample.at > longest:
            break
        since = sample.at
    return since


def _figures(samples: Sequence[Sample], queue: topology.Queue) -> Figures:
    now = samples[-1]
    count = now.counts.get(queue.name)
    if count is None:
        return Figures(queue.name, None, silent=queue.name in now.silent)
    if queue not in topology.WORK_QUEUES:
        at_rest = _untaken(samples, queue.name) if queue in topology.DEAD_QUEUES else None
        since = now.dead_since.get(queue.name)
        return Figures(
            queue.name,
            (at_rest or count).ready,
            consumers=count.consumers,
            oldest_seconds=(now.at - since).total_seconds() if since else None,
            oldest_bound="about" if since else None,
        )
    seconds, bound = oldest(samples, queue.name)
    dead = _untaken(samples, queue.dead)
    return Figures(
        queue.name,
        count.ready,
        unacked=now.unacked(queue.name),
        consumers=count.consumers,
        in_rate=in_rate(samples, queue.name),
        out_rate=now.out_rate(queue.name),
        oldest_seconds=seconds,
        oldest_bound=bound,
        dead=dead.ready if dead else None,
    )


def _untaken(samples: Sequence[Sample], queue: str) -> Count | None:
    """Return the last count of a queue that only tools consume, taken while no tool held it."""
    now = samples[-1].counts.get(queue)
    if now is None or not now.consumers:
        return now
    known = (sample.counts.get(queue) for sample in reversed(samples))
    return next((count for count in known if count and not count.consumers), now)


def in_rate(samples: Sequence[Sample], queue: str) -> float | None:
    """Return the published messages per second: the growth of a queue, and its handled messages."""
    now = samples[-1]
    window = [s for s in samples if now.at - s.at <= RATE_WINDOW and s.messages(queue) is not None]
    if len(window) < 2 or window[-1] is not now:
        return None
    then = window[0]
    before, after = then.handled(queue), now.handled(queue)
    handled = sum(max(0, count - before.get(instance, 0)) for instance, count in after.items())
    grown = (now.messages(queue) or 0) - (then.messages(queue) or 0)
    return max(0.0, (grown + handled) / (now.at - then.at).total_seconds())


def oldest(samples: Sequence[Sample], queue: str) -> tuple[float | None, Bound | None]:
    """Return the age in seconds of the first message of a work queue, and how exact it is.

    A queue is first in, first out. So its first message arrived after the queue was last empty, and
    after the newest handled message; and if no message left the queue since a sample that had some,
    the first one is among those.

    Of several shards, the age is that of the shard furthest behind.
    """
    now = samples[-1]
    if not now.messages(queue):
        return None, None
    if waiting := [name for name, count in now.shards.items() if count.ready]:
        found = (_oldest_in(samples, queue, part) for part in waiting)
        return max(found, key=lambda age: age[0])
    youngest = [s.at for s in samples if s.messages(queue) == 0]
    reached = now.reached(queue)
    after = max([*youngest[-1:], *([reached] if reached else [])], default=None)
    before = _untouched_since(samples, queue)
    at_least = now.at - before
    if after is None:
        return at_least.total_seconds(), "at least"
    at_most = max(now.at - after, timedelta(0))
    if at_most - at_least < CLOSE or now.out_rate(queue):
        return at_most.total_seconds(), "about"
    return at_most.total_seconds(), "at most"


def _oldest_in(samples: Sequence[Sample], queue: str, part: str) -> tuple[float, Bound]:
    """Return the same of a shard with ready messages; its unacknowledged ones are not reported."""
    now = samples[-1]
    counts = [(s, s.shards[part]) for s in samples if part in s.shards]
    empty = [sample.at for sample, count in counts if not count.ready]
    reached = now.reached_of(queue, part)
    after = max([*empty[-1:], *([reached] if reached else [])], default=None)
    before = now.at
    for sample, count in reversed(counts):
        if not count.ready or count.consumers or sample.reached_of(queue, part) != reached:
            break
        before = sample.at
    if after is None:
        return (now.at - before).total_seconds(), "at least"
    at_most = max(now.at - after, timedelta(0))
    # Progress in other shards does not show progress in this one.
    is_close = at_most - (now.at - before) < CLOSE
    return at_most.total_seconds(), "about" if is_close else "at most"


def _untouched_since(samples: Sequence[Sample], queue: str) -> datetime:
    """Return since when, by the samples, no message left a queue that is not empty."""
    now = samples[-1]
    since = now.at
    for sample in reversed(samples):
        count = sample.counts.get(queue)
        gone = sample.handled(queue) != now.handled(queue)
        if count is None or count.ready == 0 or count.consumers or gone:
            break
        since = sample.at
    return since


def _sum(values: Iterable[int]) -> int | None:
    found = list(values)
    return sum(found) if found else None
