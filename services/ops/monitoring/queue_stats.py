"""Every queue's figures, from what plain AMQP and the services' heartbeats tell.

The broker says what is ready and who consumes, by a passive declare; what waits on the retry ladder
too, rung by rung. The services say, every ten seconds, what they have in hand and have handled, and
the time of the message they reached (table `service_heartbeats`). Why not the management API:
docs/decisions.md.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from amqp.exceptions import NotFound
from kombu import Connection

from services.ops.monitoring.heartbeats import FRESH, Beat, QueueBeat
from shared.bus.broker.queue_counts import Count, NotKnownError
from shared.bus.broker.queue_counts import of as count_of
from shared.bus.contract import topology

PATIENCE = 2.0  # seconds, for all queues' answers: a sample is soon followed by another
RATE_WINDOW = timedelta(seconds=60)
CLOSE = timedelta(seconds=15)
"""Two bounds of an age that differ by no more than this are one figure."""

Bound = Literal["about", "at most", "at least"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Everything at one time.

    Attributes:
        at: when.
        counts: by queue; one that is not there, or does not answer, is not in it.
        silent: the queues that do not answer the broker.
        beats: the services' last heartbeats; None when the database did not answer.
        outbox: how many messages wait for the relay; None when the database did not answer, or not
            in time. More than that beyond `shared.bus.outbox.COUNTED`.
        outbox_since: since when the first of them does.
        parked: how many more cannot be published as they are; the same.
        parked_since: since when the first of those is known not to be.
        dead_since: when the first letter of a dead queue died, by dead queue, where it is known.
        alarm: why the broker takes no messages, as it says; None while it does.
        broker_error: why the broker could not be asked; then there are no counts.
        is_refused: whether that is since its user lacks a right.
        database_error: why the database could not be asked, or not be written to.
        is_read_only: whether that is since it takes no writes.
    """

    at: datetime
    counts: Mapping[str, Count] = field(default_factory=dict)
    silent: Collection[str] = ()
    beats: Sequence[Beat] | None = None
    outbox: int | None = None
    outbox_since: datetime | None = None
    parked: int | None = None
    parked_since: datetime | None = None
    dead_since: Mapping[str, datetime] = field(default_factory=dict)
    alarm: str | None = None
    broker_error: str | None = None
    is_refused: bool = False
    database_error: str | None = None
    is_read_only: bool = False

    @property
    def has_database(self) -> bool:
        """Whether the database has told what it was asked."""
        return self.database_error is None or self.is_read_only

    def messages(self, queue: str) -> int | None:
        """How many messages a queue holds, in hand or not; None when that is not known."""
        count = self.counts.get(queue)
        return None if count is None else count.ready + (self.unacked(queue) or 0)

    def unacked(self, queue: str) -> int | None:
        """How many messages of a queue services have in hand; None when none says."""
        return _sum(figures.unacked for figures in self._fresh(queue))

    def out_rate(self, queue: str) -> float | None:
        """Messages that services handled, a second; None when none says."""
        rates = [figures.rate for figures in self._fresh(queue)]
        return sum(rates) if rates else None

    def handled(self, queue: str) -> dict[str, int]:
        """How many messages each instance has handled since it started."""
        return {
            beat.instance: beat.queues[queue].handled
            for beat in self.beats or ()
            if queue in beat.queues
        }

    def reached(self, queue: str) -> datetime | None:
        """The time of the newest message of a queue that was handled, whenever that was."""
        times = [beat.queues[queue].reached for beat in self.beats or () if queue in beat.queues]
        return max((time for time in times if time is not None), default=None)

    def _fresh(self, queue: str) -> list[QueueBeat]:
        return [
            beat.queues[queue]
            for beat in self.beats or ()
            if queue in beat.queues and self.at - beat.seen_at < FRESH
        ]


@dataclass(frozen=True, slots=True)
class Figures:
    """One queue's figures; None for what is not known.

    Attributes:
        name: the queue.
        ready: how many messages wait; None when there is no such queue, or when it is silent.
        unacked: how many messages services have in hand, up to ten seconds ago.
        consumers: how many consume it.
        in_rate: messages a second that came, over the last minute.
        out_rate: messages a second that were handled, over the last ten seconds.
        oldest_seconds: how long its first message has been there.
        oldest_bound: how that is meant.
        dead: for a work queue, how many of its messages have died; while somebody has those in hand
            (a tool, or a look), how many there were before.
        silent: whether it is there and does not answer.
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


def counts(connection: Connection) -> tuple[dict[str, Count], frozenset[str]]:
    """What the broker tells of each queue of the topology, and which do not answer it.

    Args:
        connection: an open kombu connection.
    """
    found: dict[str, Count] = {}
    silent: set[str] = set()
    channel = connection.channel()
    deadline = time.monotonic() + PATIENCE
    for queue in topology.QUEUES:
        try:
            found[queue.name] = count_of(channel, queue.name, deadline - time.monotonic())
        except NotKnownError:
            silent.add(queue.name)
        except NotFound:  # which closes the channel, and py-amqp opens it again
            continue
    channel.close()
    return found, frozenset(silent)


def figures(samples: Sequence[Sample]) -> list[Figures]:
    """Every queue's figures now. A pure function.

    Args:
        samples: oldest first; one will do, but rates and ages need some minutes of them.
    """
    return [_figures(samples, queue) for queue in topology.QUEUES]


def unbroken_since(
    samples: Sequence[Sample],
    longest: timedelta,
    is_known: Callable[[Sample], bool],
) -> datetime:
    """Since when everything was looked at again and again, up to the newest sample.

    Args:
        samples: oldest first.
        longest: how long no look at all may last.
        is_known: whether a sample tells what is wanted.
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
    """What is in a queue that nobody consumes but a tool, when none was at work there."""
    now = samples[-1].counts.get(queue)
    if now is None or not now.consumers:
        return now
    known = (sample.counts.get(queue) for sample in reversed(samples))
    return next((count for count in known if count and not count.consumers), now)


def in_rate(samples: Sequence[Sample], queue: str) -> float | None:
    """Messages a second that came to a queue: what there is more, and what was handled besides."""
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
    """How long the first message of a work queue has been there, and how that is meant.

    A queue is first in, first out. So the first message came after the queue was last seen empty,
    and after the newest message that was handled; and if nothing left the queue since it was seen
    with messages in it, then the first one was among those.
    """
    now = samples[-1]
    if not now.messages(queue):
        return None, None
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


def _untouched_since(samples: Sequence[Sample], queue: str) -> datetime:
    """Since when, as far as was seen, nothing has left a queue that is not empty."""
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
