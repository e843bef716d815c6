"""Holding messages of a queue unacknowledged, to look at them and to settle some of them.

What is not settled goes back to where it was when the hold ends, also when this process dies: a
quorum queue puts returned messages before the others, in their order. It costs each of them one
delivery, so it is for queues that have no limit anybody reaches: the dead ones, and the retry
ladder's, where a message that was returned too often comes back early and is not lost.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Connection

MOST = 65_535
"""What one hold can look through: AMQP 0-9-1 counts the prefetch in 16 bits."""
RETURN_SECONDS = 0.5
"""How long to wait at the end for what goes back, so that who looks next finds it there."""
# So many of a channel's acknowledgements may be under way to a quorum queue before more are put off
# (rabbit_fifo_client); this is what they are given to arrive.
PUT_OFF_BEYOND = 32
SETTLE_SECONDS = 0.5
# A message that somebody else has in hand does not come; after so many seconds it is not awaited.
QUIET_SECONDS = 1.0


class Hold:
    """Messages of one queue, in their order.

    Attributes:
        ready: how many were there at the beginning, beside those that somebody else holds.
        singly: how many were settled one by one.
    """

    def __init__(self, connection: Connection, channel: Any, queue: str, most: int) -> None:
        self._connection = connection
        self._channel = channel
        self._came: list[Any] = []
        self._taken = 0
        self._settled = 0
        self._settled_up_to = 0  # the delivery tag
        self.singly = 0
        self.ready = int(channel.queue_declare(queue, passive=True).message_count)
        self._awaited = self.ready
        if self._awaited:
            channel.basic_qos(0, most, False)
            channel.basic_consume(queue, consumer_tag="hold", callback=self._came.append)

    def take(self, most: int) -> list[Any]:
        """The next messages, of py-amqp's; an empty list at the end.

        Args:
            most: how many at most.
        """
        wanted = min(most, self._awaited - self._taken)
        heard = time.monotonic()
        while len(self._came) < wanted and time.monotonic() - heard < QUIET_SECONDS:
            before = len(self._came)
            try:
                self._connection.drain_events(timeout=0.1)
            except TimeoutError:
                continue
            if len(self._came) > before:
                heard = time.monotonic()
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

    @property
    def remaining(self) -> int:
        """How many of those that were there at the beginning should be there at the end."""
        return self.ready - self._settled


@contextmanager
def hold(connection: Connection, queue: str, most: int = MOST) -> Iterator[Hold]:
    """Hold messages of a queue for as long as the context lasts.

    Args:
        connection: an open kombu connection.
        queue: its name.
        most: how many unsettled messages to hold at a time at most.

    Raises:
        amqp.exceptions.NotFound: there is no such queue.
    """
    with connection.channel() as channel:
        held = Hold(connection, channel, queue, min(most, MOST))
        yield held
        if held.singly > PUT_OFF_BEYOND:
            time.sleep(SETTLE_SECONDS)
    # The broker has closed the channel before the queue has its messages back.
    deadline = time.monotonic() + RETURN_SECONDS
    while time.monotonic() < deadline and count(connection, queue) < held.remaining:
        time.sleep(0.005)


def count(connection: Connection, queue: str) -> int:
    """How many messages are in a queue, beside those that somebody holds."""
    with connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)
