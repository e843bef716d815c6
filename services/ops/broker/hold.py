"""Looking through a queue, one tool at a time.

`hold` keeps messages unacknowledged, to look at them and to settle some of them. What is not
settled goes back to where it was when the hold ends, also when this process dies: a quorum queue
puts returned messages before the others, in their order. It costs each of them one delivery, so it
is for queues that have no limit anybody reaches: the dead ones, and the retry ladder's, where a
message that was returned too often comes back early and is not lost.

`look_through` is for work queues, which give a message up after 20 deliveries: a look would be one.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import turn
from shared.bus.broker import queue_counts
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.copies import again
from shared.bus.contract.delivery import Incoming, believed

MOST = 65_535
"""What one hold can look through: AMQP 0-9-1 counts the prefetch in 16 bits."""
ANSWER_SECONDS, MOMENT_SECONDS = 2.0, 15.0
"""For how long a queue is asked that does not answer: a person waits, and will look again. One that
has answered before is given a moment more."""
RETURN_SECONDS = 10.0
"""How long to wait at the end for what goes back, so that who looks next finds it there. It goes
back at once, unless the broker has much to do."""
# So many of a channel's acknowledgements may be under way to a quorum queue before more are put off
# (rabbit_fifo_client); this is what they are given to arrive.
PUT_OFF_BEYOND = 32
SETTLE_SECONDS = 0.5
# When nothing has come for so long, it is asked whether anything will.
QUIET_SECONDS, MOST_QUIET_SECONDS = 1.0, 60.0
COPIES = 500  # published at once


See = Callable[[Incoming, str], AmqpMessage | None]
"""What is shown a message, and told who publishes its copy; gives the copy, or None for none."""


NOT_WHOLE = (
    "Not all could be looked at: somebody is at work in a queue, or too many messages wait. "
    "Try again."
)


class BusyError(Exception):
    """Somebody else has messages of the queue in hand, or it holds more than can be looked at."""

    @classmethod
    def of(cls, queue: str) -> "BusyError":
        """For what was looked for in a queue, and may be in their hands."""
        return cls(f"Somebody is at work in {queue}: not all is known. Try again in a moment.")

    @classmethod
    def beyond(cls, queue: str) -> "BusyError":
        """For what was looked for in a queue, and may be behind what can be looked through."""
        return cls(f"{queue} has more than {MOST:,} messages: what is behind those is not known.")


class Hold:
    """Messages of one queue, in their order.

    Attributes:
        alone: false when another tool is at work in the queue, or anybody consumed it before: what
            they have in hand is missing.
        ready: how many were there at the beginning, beside those that somebody else holds.
        singly: how many were settled one by one.
    """

    def __init__(
        self,
        connection: Connection,
        channel: Any,
        queue: str,
        most: int,
        alone: bool,
        found: queue_counts.Count,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._most = most
        self._came: list[Any] = []
        self._taken = 0
        self._settled = 0
        self._settled_up_to = 0  # the delivery tag
        self.singly = 0
        self.ready, self._others = found
        # The broker knows of those, too, who do not meet this one's tools.
        self.alone = alone and not self._others
        self._awaited = self.ready
        if self._awaited:
            channel.basic_qos(0, most, False)
            channel.basic_consume(queue, consumer_tag="hold", callback=self._came.append)

    def take(self, most: int) -> list[Any]:
        """The next messages, of py-amqp's; an empty list at the end.

        Args:
            most: how many at most.
        """
        # Of what is unsettled the broker brings no more than the channel asks for.
        window = self._most - (self._taken - self._settled)
        wanted = max(0, min(most, self._awaited - self._taken, window))
        _await(self._connection, self._channel, self._queue, self._came, wanted)
        taken, self._came[:] = self._came[:wanted], self._came[wanted:]
        self._taken += len(taken)
        if len(taken) < wanted:
            self._awaited = self._taken
        return taken

    def settle(self, tags: Iterable[int]) -> None:
        """Acknowledge: these leave the queue.

        What follows upon what is settled already goes in one acknowledgement. A quorum queue under
        load puts off what comes singly, and forgets it when the channel closes.
        """
        ordered = sorted(tags)
        in_row = 0
        while in_row < len(ordered) and ordered[in_row] == self._settled_up_to + 1:
            self._settled_up_to += 1
            in_row += 1
        if in_row:
            self._channel.basic_ack(self._settled_up_to, multiple=True)
        for tag in ordered[in_row:]:
            self._channel.basic_ack(tag)
        self._settled += len(ordered)
        self.singly += len(ordered) - in_row

    def is_back(self, connection: Connection) -> bool:
        """Whether what was not settled is in the queue again.

        A quorum queue gives back what a consumer has and forgets the consumer in one step. So none
        is missed that has expired since, or that somebody has fetched.
        """
        with suppress(queue_counts.NotKnownError), connection.channel() as channel:
            # Its own consumer goes as its messages come back: who comes next must meet neither.
            found = queue_counts.of(channel, self._queue, ANSWER_SECONDS)
            return found.consumers <= self._others
        return False

    @property
    def unseen(self) -> int:
        """How many of those that were there at the beginning have not been taken."""
        return self.ready - self._taken

    @property
    def remaining(self) -> int:
        """How many of those that were there at the beginning should be there at the end."""
        return self.ready - self._settled


@contextmanager
def hold(
    connection: Connection,
    queue: str,
    most: int = MOST,
) -> Iterator[Hold]:
    """Hold messages of a queue for as long as the context lasts, when nobody else does.

    Args:
        connection: an open kombu connection.
        queue: its name.
        most: how many unsettled messages to hold at a time at most.

    Raises:
        amqp.exceptions.NotFound: there is no such queue.
        shared.bus.broker.queue_counts.NotKnownError: it does not answer.
    """
    with connection.channel() as channel:
        found = queue_counts.of(channel, queue, ANSWER_SECONDS)
        if not any(found):  # nothing is there, nor in anybody's hand: no turn need be waited for
            yield Hold(connection, channel, queue, most, True, found)
            return
    with turn(queue) as alone:
        with connection.channel() as channel:
            found = queue_counts.of(channel, queue, ANSWER_SECONDS)
            held = Hold(connection, channel, queue, min(most, MOST), alone, found)
            yield held
            if held.singly > PUT_OFF_BEYOND:
                time.sleep(SETTLE_SECONDS)
        # The broker has closed the channel before the queue has its messages back.
        deadline = time.monotonic() + RETURN_SECONDS
        while time.monotonic() < deadline and not held.is_back(connection):
            time.sleep(0.005)


def look_through(connection: Connection, queue: str, see: See) -> None:
    """Show every message of a work queue that nobody consumes.

    Each goes back as a copy of itself, confirmed before it leaves, so that it has no delivery
    behind it that was none. When this process dies in between, some are there twice, under one id.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        queue: its name.
        see: called with each message; what goes back in its place, or None for nothing. It is
            `as_it_is` that leaves everything as it was.

    Raises:
        BusyError: services consume it, or another tool looks through it.
        shared.bus.broker.queue_counts.NotKnownError: it does not answer.
        NotPublishedError: the broker did not take the copies; nothing was lost.
    """
    with turn(queue) as alone:
        with connection.channel() as channel:
            left, consumers = queue_counts.of(channel, queue, ANSWER_SECONDS)
        if consumers or not alone:
            by = f"{consumers} consumers" if consumers else "another tool"
            raise BusyError(f"{by} may have messages of {queue} in hand")
        while left > 0:
            shown = _pass_on(connection, queue, min(left, COPIES), see)
            if not shown:
                raise BusyError(f"{left} messages of {queue} are in somebody's hand")
            left -= shown


def as_it_is(incoming: Incoming, publisher: str) -> AmqpMessage:
    """A copy of a message, what it has behind it included."""
    return again(incoming, incoming.user_id, publisher)


def _pass_on(
    connection: Connection,
    queue: str,
    most: int,
    see: See,
) -> int:
    came: list[Any] = []
    with connection.channel() as channel:
        # No more than these are ever delivered: none is acknowledged before the cancel.
        channel.basic_qos(0, most, False)
        channel.basic_consume(queue, consumer_tag="look", callback=came.append)
        _await(connection, channel, queue, came, most)
        channel.basic_cancel("look")
        if came:
            user = user_of(connection)
            known = believed(queue, user)
            copies = [see(Incoming.of(message, known), user) for message in came]
            publish(connection, queue, [copy for copy in copies if copy is not None])
            channel.basic_ack(came[-1].delivery_info["delivery_tag"], multiple=True)
    return len(came)


def _await(connection: Connection, channel: Any, queue: str, came: list[Any], wanted: int) -> None:
    """Wait until so many messages came, or no more will: somebody else has them in hand."""
    heard = time.monotonic()
    while len(came) < wanted and time.monotonic() - heard < MOST_QUIET_SECONDS:
        before = len(came)
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.1)
        if len(came) > before:
            heard = time.monotonic()
            continue
        is_quiet = time.monotonic() - heard >= QUIET_SECONDS
        if is_quiet and _has_brought_all(channel, queue, came):
            return


def _has_brought_all(channel: Any, queue: str, came: list[Any]) -> bool:
    """Whether nothing is on its way to a channel that consumes a queue.

    What the queue has handed out before it says that it has nothing more is with the channel by
    then, and the channel has passed it on before it answers anything that is asked later.
    """
    before = len(came)
    left = queue_counts.of(channel, queue, MOMENT_SECONDS).ready
    queue_counts.of(channel, queue, MOMENT_SECONDS)
    return left == 0 and len(came) == before


def count(connection: Connection, queue: str) -> int:
    """How many messages are in a queue, beside those that somebody holds."""
    with connection.channel() as channel:
        return queue_counts.of(channel, queue, ANSWER_SECONDS).ready
