"""Reading a queue without consuming it, one tool at a time.

`hold` keeps messages unacknowledged, to read them and settle some. The rest returns to its place
when the hold ends, or this process dies: a quorum queue puts returned messages in front, in their
order. Each return counts as a delivery. `hold` is therefore for queues whose delivery limit is not
reached in practice: dead queues, and the delay queues, where a message that was returned too often
merely goes back to its work queue early.

`scan` is for work queues, which discard a message after 20 deliveries: a hold would count as one.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection

from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import locked
from shared.bus.broker import queue_counts
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.copies import again
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, believed

MOST = 65_535
"""Messages that one hold can read: AMQP 0-9-1 has 16 bits for the prefetch count."""
ANSWER_SECONDS, MOMENT_SECONDS = 2.0, 15.0
"""Timeouts for a queue's counts: at first, while a person waits and can retry; and once the queue
has answered."""
RETURN_SECONDS = 10.0
"""How long a hold waits, at its end, until the returned messages are visible in the queue. They
return immediately unless the broker is busy."""
# A channel may have so many acknowledgements in flight to a quorum queue; further ones are deferred
# (rabbit_fifo_client) and get SETTLE_SECONDS to arrive.
DEFERRED_BEYOND = 32
SETTLE_SECONDS = 0.5
# After QUIET_SECONDS without a message the broker is asked whether more will come.
QUIET_SECONDS, MOST_QUIET_SECONDS = 1.0, 60.0
COPIES = 500  # per publish
_WORK = {queue.name: queue for queue in topology.WORK_QUEUES}
_DELAY_QUEUES = frozenset(delay.name for delay in topology.RETRY_DELAYS)


Visitor = Callable[[RawDelivery, str], AmqpMessage | None]
"""Called with a message and the copy's publisher; returns the copy, or None to drop the message."""


NOT_WHOLE = (
    "Not all could be looked at: somebody is at work in a queue, or too many messages wait. "
    "Try again."
)


class BusyError(Exception):
    """Another tool or consumer holds messages of the queue, or it has more than can be read."""

    @classmethod
    def of(cls, queue: str) -> "BusyError":
        """Return the error for a message that another tool or consumer may hold."""
        return cls(f"Somebody is at work in {queue}: not all is known. Try again in a moment.")

    @classmethod
    def beyond(cls, queue: str) -> "BusyError":
        """Return the error for a message that may be beyond the first `MOST`."""
        return cls(f"{queue} has more than {MOST:,} messages: what is behind those is not known.")


class QueueHold:
    """Unacknowledged messages of one queue, in queue order.

    Attributes:
        alone: false if another tool has the queue's lock, or the queue has another consumer, whose
            messages are missing.
        ready: the ready messages at the start, without those that are unacknowledged elsewhere.
        singly: the number of acknowledgements that were sent for one message each.
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
        self._received: list[Any] = []
        self._taken = 0
        self._settled = 0
        self._settled_up_to = 0  # the delivery tag
        self.singly = 0
        self.ready, self._others = found
        # The broker also counts consumers that do not take this system's locks.
        self.alone = alone and not self._others
        self._awaited = self.ready
        if self._awaited:
            channel.basic_qos(0, most, False)
            channel.basic_consume(queue, consumer_tag="hold", callback=self._received.append)

    def take(self, most: int) -> list[Any]:
        """Return the next py-amqp messages, at most `most`; an empty list at the end."""
        # The broker delivers no more unsettled messages than the channel's prefetch count.
        window = self._most - (self._taken - self._settled)
        wanted = max(0, min(most, self._awaited - self._taken, window))
        _await(self._connection, self._channel, self._queue, self._received, wanted)
        taken, self._received[:] = self._received[:wanted], self._received[wanted:]
        self._taken += len(taken)
        if len(taken) < wanted:
            self._awaited = self._taken
        return taken

    def settle(self, tags: Iterable[int]) -> None:
        """Acknowledge messages, which leave the queue.

        A run of messages behind the settled ones takes one acknowledgement. A quorum queue under
        load defers single acknowledgements, and drops the deferred ones when the channel closes.
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
        """Return whether the unsettled messages are back in the queue.

        A quorum queue returns a consumer's messages and removes the consumer in one step. Counting
        consumers also holds where returned messages expired, or were fetched meanwhile.
        """
        with suppress(queue_counts.NotKnownError), connection.channel() as channel:
            # The hold's own consumer must be gone as well: the next reader must not count it.
            found = queue_counts.of(channel, self._queue, ANSWER_SECONDS)
            return found.consumers <= self._others
        return False

    @property
    def unseen(self) -> int:
        """The messages of the start that have not been taken."""
        return self.ready - self._taken

    @property
    def remaining(self) -> int:
        """The messages of the start that should remain in the queue."""
        return self.ready - self._settled


@contextmanager
def hold(
    connection: Connection,
    queue: str,
    most: int = MOST,
) -> Iterator[QueueHold]:
    """Hold messages of a queue for the duration of the context, under the queue's lock.

    Args:
        connection: an open kombu connection.
        queue: the queue's name.
        most: the limit of unsettled messages at a time.

    Raises:
        amqp.exceptions.NotFound: there is no such queue.
        shared.bus.broker.queue_counts.NotKnownError: the queue does not answer.
    """
    with connection.channel() as channel:
        found = queue_counts.of(channel, queue, ANSWER_SECONDS)
        if not any(found):  # empty and without consumers: no need to wait for the lock
            yield QueueHold(connection, channel, queue, most, True, found)
            return
    with locked(queue) as alone:
        with connection.channel() as channel:
            found = queue_counts.of(channel, queue, ANSWER_SECONDS)
            held = QueueHold(connection, channel, queue, min(most, MOST), alone, found)
            yield held
            if held.singly > DEFERRED_BEYOND:
                time.sleep(SETTLE_SECONDS)
        # The broker closes a channel before the queue has its messages back.
        deadline = time.monotonic() + RETURN_SECONDS
        while time.monotonic() < deadline and not held.is_back(connection):
            time.sleep(0.005)


def scan(connection: Connection, queue: str, see: Visitor) -> None:
    """Pass every message of a work queue without consumers to `see`.

    Each message is replaced with the copy that `see` returns, confirmed before the message leaves,
    so that no delivery is counted. If this process dies in between, some messages are in the queue
    twice, under the same id if they have one.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        queue: the queue's name.
        see: returns a message's replacement, or None to drop it; `verbatim_copy` changes nothing.

    Raises:
        BusyError: the queue has consumers, or another tool has its lock.
        shared.bus.broker.queue_counts.NotKnownError: the queue does not answer.
        NotPublishedError: the broker did not take the copies; nothing was lost.
    """
    with locked(queue) as alone:
        with connection.channel() as channel:
            left, consumers = queue_counts.of(channel, queue, ANSWER_SECONDS)
        if consumers or not alone:
            by = f"{consumers} consumers" if consumers else "another tool"
            raise BusyError(f"{by} may have messages of {queue} in hand")
        while left > 0:
            replaced = _replace(connection, queue, min(left, COPIES), see)
            if not replaced:
                raise BusyError(f"{left} messages of {queue} are unacknowledged elsewhere")
            left -= replaced


def verbatim_copy(incoming: RawDelivery, publisher: str) -> AmqpMessage:
    """Return a copy of a message with its history."""
    return again(incoming, incoming.user_id, publisher)


def limit_trust(incoming: RawDelivery, copy: AmqpMessage, queue: str) -> AmqpMessage:
    """Return a copy whose claimed sender is trusted no more than the message's.

    Args:
        incoming: the message, from a work queue or a delay queue; not validated yet.
        copy: a copy of it.
        queue: the name of the work queue that the copy goes to.
    """
    exchange = "" if incoming.exchange in _DELAY_QUEUES else incoming.exchange
    work = _WORK.get(topology.whole(queue))
    is_misrouted = work is None or topology.misrouted(work, exchange, incoming.routing_key)
    if is_misrouted or incoming.misnamed:
        # Consumers refuse a copy without a user_id, as they would have refused the message.
        copy.properties.pop("user_id", None)
    return copy


def _replace(connection: Connection, queue: str, most: int, see: Visitor) -> int:
    received: list[Any] = []
    with connection.channel() as channel:
        # Nothing is acknowledged before the cancel, so that the prefetch bounds the deliveries.
        channel.basic_qos(0, most, False)
        channel.basic_consume(queue, consumer_tag="look", callback=received.append)
        _await(connection, channel, queue, received, most)
        channel.basic_cancel("look")
        if received:
            user = user_of(connection)
            known = believed(queue, user)
            messages = [RawDelivery.of(message, known) for message in received]
            copies = [(incoming, see(incoming, user)) for incoming in messages]
            publish(
                connection, queue, [limit_trust(i, c, queue) for i, c in copies if c is not None]
            )
            channel.basic_ack(received[-1].delivery_info["delivery_tag"], multiple=True)
    return len(received)


def _await(
    connection: Connection, channel: Any, queue: str, received: list[Any], wanted: int
) -> None:
    """Wait until `wanted` messages came, or no more will: they are unacknowledged elsewhere."""
    last = time.monotonic()
    while len(received) < wanted and time.monotonic() - last < MOST_QUIET_SECONDS:
        before = len(received)
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.1)
        if len(received) > before:
            last = time.monotonic()
            continue
        is_quiet = time.monotonic() - last >= QUIET_SECONDS
        if is_quiet and _has_delivered_all(channel, queue, received):
            return


def _has_delivered_all(channel: Any, queue: str, received: list[Any]) -> bool:
    """Return whether no message is on its way to a channel that consumes a queue.

    Messages that the queue delivered before its first answer have reached the channel by then, and
    the channel passes them on before it answers the second question.
    """
    before = len(received)
    left = queue_counts.of(channel, queue, MOMENT_SECONDS).ready
    queue_counts.of(channel, queue, MOMENT_SECONDS)
    return left == 0 and len(received) == before


def count(connection: Connection, queue: str) -> int:
    """Return the number of ready messages, without those that are unacknowledged elsewhere."""
    with connection.channel() as channel:
        return queue_counts.of(channel, queue, ANSWER_SECONDS).ready
