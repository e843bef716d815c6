"""The queues that hold a consumer's messages: each is tried by itself, then all at full speed.

Most consumers have one queue. `orders.intake` may be split into shards (`INTAKE_SHARDS`), which are
declared, granted and removed while consumers run.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

import structlog
from amqp.exceptions import AccessRefused, NotFound
from kombu import Connection

from shared.bus.broker import declaration, queue_counts
from shared.bus.consume.subscription import Subscription

TRIED_SECONDS = 0.5  # how long a queue that is tried may bring nothing before the next one is
LOOK_SECONDS = 10.0  # between two searches for shards that are missing or were left out
COUNT_SECONDS = 1.0  # timeout for the answer whether a queue holds messages
MOST_SOURCES = 4
"""With up to this many queues each gets the full prefetch; with more, a share, at least a batch."""
REFUSED = (
    "This user may not consume the shards, and goes on without them. `python -m "
    "shared.bus.declare`, or the definitions, give it the right; then they are found"
)

log = structlog.get_logger()


class Owner(Protocol):
    """What is remembered beyond one connection.

    Attributes:
        is_refused: whether the broker has refused access to the shards.
    """

    subscription: Subscription
    stopping: Event
    is_refused: bool


class Sources:
    """Starts and stops the AMQP consumers of one connection.

    After a restart the message that killed the process is at the head of its queue. So each queue
    first brings one message at a time, with nothing of another queue in hand, until a message was
    handled: a crash then adds to the delivery count of one message only.

    Args:
        owner: the consumer.
        connection: to the broker.
        channel: of that connection.
        on_message: called with each message of py-amqp.
        has_received: whether messages were received that are not in a batch yet.

    Attributes:
        names: the queues.
        prefetch: how many unacknowledged messages the broker may send in all.
    """

    def __init__(
        self,
        owner: Owner,
        connection: Connection,
        channel: Any,
        on_message: Callable[[Any], None],
        has_received: Callable[[], bool],
    ) -> None:
        self._owner = owner
        self._subscription = owner.subscription
        self._connection = connection
        self._channel = channel
        self._on_message = on_message
        self._has_received = has_received
        self.names = [self._subscription.queue.name]
        self.prefetch = 0
        self._leaves_out = False  # whether shards exist that cannot be consumed now
        self._untried: deque[str] = deque()
        self._tried_at = 0.0
        self._consumer_tags: list[str] = []
        self._rounds = 0
        self._looked_at = time.monotonic()

    @property
    def is_done_trying(self) -> bool:
        """Whether each queue was tried."""
        return not self._untried

    @property
    def is_dry(self) -> bool:
        """Whether the queue that is tried has brought nothing, so that the next can be tried."""
        if len(self.names) == 1:
            return False
        if not self._consumer_tags:
            return True
        return self.prefetch == 1 and time.monotonic() - self._tried_at >= TRIED_SECONDS

    def begin(self) -> None:
        """Find the queues and try the first."""
        self.names = self._parts()
        self._untried += self.names
        self.advance()

    def handled(self) -> None:
        """Restart the clock of `is_dry`: a batch was handled."""
        self._tried_at = time.monotonic()

    def advance(self) -> None:
        """Try the next queue, one message at a time; consume all of them once each was tried."""
        self._tried_at = time.monotonic()
        self.cancel()
        if self._has_received() and len(self.names) > 1:
            return  # a message arrived before the cancellation; it is handled alone
        while self._untried:
            name = self._untried.popleft()
            # Most shards are empty. While an empty one is tried, the others are not consumed.
            if len(self.names) == 1 or self._count(name):
                self.consume_one_by_one([name])
                return
        asked = self._subscription
        self._consume(self.names, prefetch=2 * asked.batch_size + asked.most_under_way)

    def consume_one_by_one(self, queues: Sequence[str]) -> None:
        """Consume queues with a prefetch of 1."""
        self._consume(queues, prefetch=1)

    def cancel(self) -> None:
        """Cancel all consumers of this channel; what they have received stays in hand."""
        tags, self._consumer_tags = self._consumer_tags, []
        for tag in tags:
            self._channel.basic_cancel(tag)

    def look_for_shards(self) -> None:
        """Start to consume shards that were declared, or became accessible, since the last look."""
        lacks_some = self._leaves_out or len(self.names) < self._subscription.shards
        if not (lacks_some and self._consumer_tags) or self._owner.stopping.is_set():
            return
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        found = self._parts()
        new = [name for name in found if name not in self.names]
        self.names, self._untried = found, self._untried + deque(new)
        if new and self.prefetch > 1:
            # The new ones are tried once nothing of the others is in hand.
            self.cancel()

    def _parts(self) -> list[str]:
        """Return the queues that can be consumed now: the first, and the shards that answer.

        A shard that is refused, or whose leader does not answer, must not stop the other queues.
        """
        self._looked_at = time.monotonic()
        first, *shards = declaration.parts(self._connection, self._subscription.queue)
        expected = max(self._subscription.shards, len(self.names))
        if 1 + len(shards) > expected and not self._leaves_out:
            expected = self._subscription.shards
            log.warning("more_shards", queues=[first, *shards], expected=expected)
        found = [first]
        for name in shards:
            if name in self.names or self._may_consume(name):
                found.append(name)
            elif self._owner.is_refused:
                break  # the right covers all shards or none
        self._leaves_out = len(found) <= len(shards)
        return found

    def _may_consume(self, shard: str) -> bool:
        """Whether a shard answers, and is not refused as far as that is known."""
        try:
            with self._connection.channel() as channel:
                queue_counts.of(channel, shard, 0.0)
                if self._owner.is_refused:
                    # A message that arrives goes back when the channel closes.
                    channel.basic_qos(0, 1, False)
                    channel.basic_consume(shard, callback=lambda _: None)
        except (queue_counts.NotKnownError, AccessRefused, NotFound) as error:
            if not isinstance(error, AccessRefused):
                log.warning("shard_left_out", queue=shard, error=str(error))
            return False
        self._owner.is_refused = False
        return True

    def _count(self, queue: str) -> int:
        return queue_counts.of(self._channel, queue, COUNT_SECONDS).ready

    def _consume(self, queues: Sequence[str], prefetch: int) -> None:
        self.cancel()
        self.prefetch = prefetch
        # RabbitMQ applies a prefetch to each consumer of the channel. Each gets at least a batch,
        # since all waiting messages may be of one account and so in one shard.
        each = max(self._subscription.batch_size, MOST_SOURCES * prefetch // len(queues))
        self._channel.basic_qos(0, min(prefetch, each), False)
        # Reusing a consumer tag on a channel crashes the channel on 3.10 (rabbitmq-server 5927).
        self._rounds += 1
        self._consumer_tags = [f"{queue} {self._rounds}" for queue in queues]
        for queue, tag in zip(queues, self._consumer_tags, strict=True):
            try:
                self._channel.basic_consume(
                    queue, consumer_tag=tag, callback=self._on_message, on_cancel=self._on_cancel
                )
            except AccessRefused:
                # The refusal has closed the channel; the next connection leaves the shards out.
                # `_may_consume` does not see it before 4.2.6, where a passive declare needs no
                # right.
                if queue != self._subscription.queue.name and not self._owner.is_refused:
                    self._owner.is_refused = True
                    log.error("shards_refused", queue=queue, reason=REFUSED)  # noqa: TRY400 - known
                raise

    def _on_cancel(self, consumer_tag: str) -> None:
        # The queue was deleted, or its leader moved: a new connection declares and consumes anew.
        raise ConnectionError(f"the broker cancelled the consumer of {consumer_tag}")
