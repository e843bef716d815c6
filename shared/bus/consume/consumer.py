"""The consumer runtime: one subscription, from the queue to the acknowledgement.

Two threads. This one owns the AMQP connection: it receives up to the prefetch, keeps heartbeats
alive and acknowledges. The other runs transactions, one batch at a time, so that a slow or absent
database never costs the connection.

Traps of kombu 5.7 and py-amqp 5.4 that shape it: heartbeats are off unless
`Connection(heartbeat=)` is given and somebody calls `heartbeat_check`; `ConsumerMixin.run()` does
not notice a stop while the broker is down; a changed prefetch counts for new consumers only.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from kombu import Connection

from shared import versions
from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import connect, server_version, user_of
from shared.bus.broker.standing import Standing
from shared.bus.consume import inbox, single_active
from shared.bus.consume.batch import BatchHandler, Decode, Delivery, StoppedError, held_by, lacked
from shared.bus.consume.copying import Copying
from shared.bus.consume.receiving.buffered_reader import Inbound
from shared.bus.consume.receiving.delivery_tags import DeliveryTags
from shared.bus.consume.rehearsals.trying import Rehearsed
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.traced import batches_class
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed, decode_by_type
from shared.bus.contract.errors import Malformed, UnderWay
from shared.bus.contract.message import Received
from shared.bus.metrics import QueueMetrics

IDLE_SECONDS = 0.5  # how long to wait for a message, and so for a stop to be noticed
BUSY_SECONDS = 0.005  # the same while a batch is in hand and there is room for more
COPYING_SECONDS = 0.02  # the same while copies are not confirmed
LAST_COPIES_SECONDS = 5.0  # how long a stop waits for those
ASK_SECONDS = 1.0  # between two looks at what is under way, while nothing else is to be done
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between attempts to connect
TURN_SECONDS = 0.5  # between two looks whether the queue has no consumer any more

# A message that was delivered so often without an answer may be what kills its consumer. It is
# handled alone, and at the start nothing else is taken beside it: a crash then costs a delivery of
# its own limit and nobody else's.
SUSPICIOUS_DELIVERIES = 3
_KEPT = (StoppedError, UnderWay)  # what has neither failed nor been done


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A queue and what is done with its messages.

    Attributes:
        queue: from the topology.
        handle: a batch handler; `batch.each` makes one of plain handlers.
        consumer: the name of the inbox.
        batch_size: how many messages share a transaction at most.
        batch_seconds: how long the first message of a batch waits for others.
        decode: from what came to what the handler sees.
        in_order: whether its messages take effect one by one in the order of the queue: of several
            processes one consumes, and another when that one ends.
        needs: looks for what is needed beside the database, and raises `Hold` where it is away.
        keyed: whether each effect has a key of its own, which outlives the journal, so that a
            message may be handled again although the inbox knows it; see `message.Replay`.
        rehearsed: makes the handler for trying what a message would do; None where that is not to
            be tried.
    """

    queue: topology.Queue
    handle: BatchHandler
    consumer: str
    batch_size: int = 100
    batch_seconds: float = 0.02
    decode: Decode = decode_by_type
    in_order: bool = False
    needs: Callable[[], None] | None = None
    keyed: bool = False
    rehearsed: Rehearsed | None = None


class Consumer:
    """Runs one subscription until it is told to stop.

    Args:
        amqp_url: where the queue is.
        heartbeat: seconds.
        subscription: see there.
        stopping: set to make `run` return: the batch in hand is finished, the rest goes back.
    """

    def __init__(
        self,
        amqp_url: str,
        heartbeat: int,
        subscription: Subscription,
        stopping: threading.Event,
    ) -> None:
        self.subscription = subscription
        self.last_turn = time.monotonic()
        """When the loop last turned, on the monotonic clock; for liveness."""
        self.unacknowledged = 0
        """How many messages were received and not yet acknowledged."""
        self.handled = 0
        """How many messages were acknowledged since it was made."""
        self.reached: datetime | None = None
        """The time of the last message handled that came first hand, not by the retry ladder."""
        self.standing = Standing(subscription.queue.name)
        self._amqp_url = amqp_url
        self._heartbeat = heartbeat
        self._stopping = stopping
        self._batches = batches_class()(
            subscription.consumer,
            decoding(subscription),
            subscription.handle,
            stopping,
            self.standing,
            keyed=subscription.keyed,
        )
        self._metrics = QueueMetrics(subscription.queue.name, lambda: self.unacknowledged)
        self._requeuer = Requeuer(
            amqp_url, subscription.queue, subscription.consumer, self._metrics.requeued
        )
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"{subscription.queue.name}-work")
        # What was under way outside the database when the last connection was lost.
        self._left: list[Delivery] = []

    def run(self) -> None:
        """Consume, and reconnect as often as it takes, until told to stop."""
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            session: _Session | None = None
            try:
                with connect(
                    self._amqp_url,
                    timeout=5,
                    heartbeat=self._heartbeat,
                    transport_options={"read_timeout": 30, "write_timeout": 30},
                ) as connection:
                    connection.connect()
                    declaration.ensure(connection, self.subscription.queue)
                    session = _Session(self, connection)
                    versions.warn_once("RabbitMQ", server_version(connection))
                    session.begin()
                    delay = FIRST_DELAY
                    session.run()
            except Exception as error:  # noqa: BLE001 - whatever it was, a new connection is the cure
                self.standing.failed(error)
                if session is not None:
                    self._left = session.abandon() or self._left
                    self._batches.lost()
            if session is not None:
                session.close()
            self.unacknowledged = 0
            self.last_turn = time.monotonic()
            self._stopping.wait(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay = min(delay * 2, LONGEST_DELAY)
        if self._left:
            # Nobody else would know what has become of it, and it would be done again.
            self._worker.submit(self._write_down, self._left).exception()
        self._worker.shutdown(wait=False)

    def _write_down(self, left: Sequence[Delivery]) -> None:
        """Run in the other thread. What has not happened is tried by whoever has it by now."""
        if happened := self._batches.happened(left):
            self._handle(happened)

    def _handle(self, batch: Sequence[Delivery]) -> dict[int, Exception]:
        """Run in the other thread."""
        self._metrics.begun()
        try:
            failed = self._batches.run(batch)
            age = (datetime.now(UTC) - batch[0].incoming.time).total_seconds()
            kept = sum(isinstance(error, _KEPT) for error in failed.values())
            self._metrics.done(len(batch) - kept, len(failed) - kept, age)
        finally:
            self._metrics.ended()
        return failed


class _Session:
    """One connection's worth of consuming: all its delivery tags die with it."""

    def __init__(self, consumer: Consumer, connection: Connection) -> None:
        self._consumer = consumer
        self._subscription = consumer.subscription
        self._connection = connection
        self._channel = connection.channel()
        self._believed = believed(self._subscription.queue.name, user_of(connection))
        self._inbound = Inbound(connection)
        self._tags = DeliveryTags()
        self._waiting: deque[Delivery] = deque()
        self._oldest = 0.0  # when the first of those waiting came
        self._in_hand: Sequence[Delivery] = ()
        self._under_way: list[Delivery] = []
        self._asked = 0.0  # when those under way were asked about
        self._future: Future[dict[int, Exception]] | None = None
        self._copying = Copying(consumer._requeuer)
        self._prefetch = 0
        self._tag = ""
        self._last_heartbeat = time.monotonic()

    def begin(self) -> None:
        """Have the broker send messages, one at first; in order, once nobody else is sent any."""
        if not self._wait_for_needs():
            return
        if self._subscription.in_order:
            self._wait_for_turn()
        else:
            self._consume(prefetch=1)
        self._consumer.standing.working()

    def run(self) -> None:
        """Consume until told to stop; returns with nothing in hand."""
        stopping = self._consumer._stopping
        while not stopping.is_set():
            self._turn()
            if self._future is None and self._is_ready() and not stopping.is_set():
                self._begin(self._next_batch())
        self._end()
        if self._under_way:
            # What becomes of it in the time that is left to a stop.
            self._begin([])
            self._end()

    def _turn(self) -> None:
        self._consumer.last_turn = time.monotonic()
        self._receive()
        self._beat()
        if self._future is not None and self._future.done():
            self._finish()
        self._acknowledge(self._copying.safe())

    def _end(self) -> None:
        while self._future is not None:
            self._turn()
        until = time.monotonic() + LAST_COPIES_SECONDS
        while self._copying.is_busy and time.monotonic() < until:
            self._turn()
        self._acknowledge(self._copying.safe())

    def _wait_for_needs(self) -> bool:
        """Wait until what its transactions need is there; returns whether it is.

        What a consumer has when it ends has been delivered once more, and after `DELIVERY_LIMIT`
        restarts in one outage the broker would take it for a message that kills its consumer.
        """
        stopping, asks, pause = self._consumer._stopping, self._subscription, FIRST_DELAY
        while not stopping.is_set():
            looking = self._consumer._worker.submit(inbox.look, asks.consumer, asks.needs)
            while not looking.done() and not stopping.is_set():
                self._idle(BUSY_SECONDS)
            away = looking.result() if looking.done() else None
            if away is None:
                self._consumer.standing.released()
                return not stopping.is_set()
            if not self._consumer.standing.told.is_well:
                self._consumer.standing.working()
            reason = held_by(away, "Nothing is taken from the queue")
            self._consumer.standing.holding(reason, lacked(away))
            until = time.monotonic() + pause
            while time.monotonic() < until and not stopping.is_set():
                self._idle(min(pause, IDLE_SECONDS))
            pause = min(2 * pause, LONGEST_DELAY)
        return False

    def _idle(self, seconds: float) -> None:
        """Keep the connection while nothing is consumed yet."""
        self._consumer.last_turn = time.monotonic()
        if self._inbound.wait(seconds):
            self._inbound.read()
        self._beat()

    def _wait_for_turn(self) -> None:
        while not self._consumer._stopping.is_set():
            self._consumer.last_turn = time.monotonic()
            self._beat()
            # Whoever takes its turn next works as well as the one who has it.
            self._consumer.standing.working()
            if single_active.begin(
                self._channel, self._subscription.queue, lambda: self._consume(prefetch=1)
            ):
                return
            self._consumer._stopping.wait(TURN_SECONDS)

    def close(self) -> None:
        """Let go of what it has beside its connection."""
        self._copying.close()

    def abandon(self) -> list[Delivery]:
        """Wait for the transaction under way; its messages come again and the inbox knows them.

        Returns:
            What is under way outside the database, of which the inbox does not know yet.
        """
        failed: dict[int, Exception] = {}
        while self._future is not None:
            self._consumer.last_turn = time.monotonic()
            wait((self._future,), timeout=IDLE_SECONDS)
            if self._future.done():
                future, self._future = self._future, None
                failed = {} if future.exception() else future.result()
        in_hand = [d for d in self._in_hand if isinstance(failed.get(d.tag), UnderWay)]
        return [*self._under_way, *in_hand]

    def _consume(self, prefetch: int) -> None:
        if self._tag:
            self._channel.basic_cancel(self._tag)
        self._prefetch = prefetch
        # A tag that a channel has used before crashes it on 3.10 (rabbitmq-server 5927).
        self._tag = f"{self._subscription.queue.name} {prefetch}"
        self._channel.basic_qos(0, prefetch, False)
        self._channel.basic_consume(
            self._subscription.queue.name,
            consumer_tag=self._tag,
            callback=self._on_message,
            on_cancel=self._on_cancel,
        )

    def _on_message(self, message: Any) -> None:
        if not self._waiting:
            self._oldest = time.monotonic()
        tag = message.delivery_info["delivery_tag"]
        self._tags.came(tag)
        self._waiting.append(Delivery(tag, Incoming.of(message, self._believed)))
        self._consumer.unacknowledged += 1

    def _on_cancel(self, consumer_tag: str) -> None:
        # The queue was deleted, or its leader moved: a new connection declares and consumes anew.
        raise ConnectionError(f"the broker cancelled the consumer of {consumer_tag}")

    def _receive(self) -> None:
        try:
            if self._future is not None and len(self._waiting) >= self._subscription.batch_size:
                # Nothing more is wanted before the batch in hand is done; but heartbeats come too,
                # and who reads none takes the connection for dead. The prefetch bounds the rest.
                done, _ = wait((self._future,), timeout=IDLE_SECONDS)
                while not done and self._inbound.wait(0):
                    self._inbound.read()
            else:
                if self._inbound.wait(self._patience()):
                    self._inbound.read()
                # Take what else has come, without a wait for each.
                while len(self._waiting) < self._subscription.batch_size:
                    if not self._inbound.wait(0.0005):
                        break
                    self._inbound.read()
        except TimeoutError:
            pass

    def _acknowledge(self, tags: Sequence[int]) -> None:
        for tag, multiple in self._tags.settle(tags):
            self._channel.basic_ack(tag, multiple=multiple)
        self._consumer.unacknowledged -= len(tags)
        self._consumer.handled += len(tags)

    def _patience(self) -> float:
        if self._future is not None:
            return BUSY_SECONDS
        if self._waiting:
            left = self._oldest + self._subscription.batch_seconds - time.monotonic()
            return min(max(left, 0.0005), IDLE_SECONDS)
        return COPYING_SECONDS if self._copying.is_busy else IDLE_SECONDS

    def _beat(self) -> None:
        if time.monotonic() - self._last_heartbeat >= 1:
            self._last_heartbeat = time.monotonic()
            self._connection.heartbeat_check()

    def _is_ready(self) -> bool:
        if not self._waiting:
            return bool(self._under_way) and time.monotonic() - self._asked >= ASK_SECONDS
        if len(self._waiting) >= min(self._subscription.batch_size, self._prefetch):
            return True
        return time.monotonic() - self._oldest >= self._subscription.batch_seconds

    def _next_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        while self._waiting and len(batch) < self._subscription.batch_size:
            suspicious = _deliveries(self._waiting[0]) >= SUSPICIOUS_DELIVERIES
            if suspicious and batch:
                break
            batch.append(self._waiting.popleft())
            if suspicious:
                break
        self._oldest = time.monotonic()
        return batch

    def _begin(self, batch: Sequence[Delivery]) -> None:
        if not (batch and _deliveries(batch[0]) >= SUSPICIOUS_DELIVERIES):
            batch, self._under_way = [*self._under_way, *batch], []
        self._in_hand = batch
        self._future = self._consumer._worker.submit(self._consumer._handle, batch)

    def _finish(self) -> None:
        future, self._future = self._future, None
        batch, self._in_hand = self._in_hand, ()
        if future is None:
            return
        failed = future.result()
        # What is kept goes back when the connection ends.
        kept = {tag for tag, error in failed.items() if isinstance(error, _KEPT)}
        self._under_way += [d for d in batch if isinstance(failed.get(d.tag), UnderWay)]
        self._asked = time.monotonic()
        self._copying.add(
            [(d, failed[d.tag]) for d in batch if d.tag in failed and d.tag not in kept]
        )
        self._acknowledge([delivery.tag for delivery in batch if delivery.tag not in failed])
        if batch[-1].incoming.attempt == 0:
            self._consumer.reached = batch[-1].incoming.stated_time or self._consumer.reached
        # In order the consumer must not end for a moment, nor two messages share a transaction.
        is_careful = self._prefetch == 1 and not self._subscription.in_order
        # One that stays in hand, for its effect or its copy to be confirmed, has killed nobody.
        stays = not isinstance(failed.get(batch[-1].tag), StoppedError | None)
        if is_careful and (stays or _deliveries(batch[-1]) < SUSPICIOUS_DELIVERIES):
            self._consume(prefetch=2 * self._subscription.batch_size)


def decoding(subscription: Subscription) -> Decode:
    """What is not from where the queue's messages come from is not even read.

    Nor is what is of another type than its key says: a publisher's rights are to keys.
    """
    queue = subscription.queue

    @lru_cache(maxsize=256)
    def misrouted(exchange: str, key: str) -> str:
        return topology.misrouted(queue, exchange, key)

    def decode(incoming: Incoming) -> Received[Any]:
        if reason := misrouted(incoming.exchange, incoming.routing_key):
            raise Malformed(
                f"{reason}, which is none of {queue.name}'s: sent there by CC or BCC, or by a "
                "binding that is not ours"
            )
        if reason := incoming.misnamed:
            raise Malformed(f"{reason}: whoever may publish the one may not say the other by it")
        return subscription.decode(incoming)

    return decode


def _deliveries(delivery: Delivery) -> int:
    count = delivery.incoming.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0
