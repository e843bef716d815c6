"""One connection's worth of consuming: receiving, batches in another thread, acknowledging."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any, Protocol

from kombu import Connection

from shared.bus.broker.kombu_connection import user_of
from shared.bus.broker.standing import Standing
from shared.bus.consume import inbox, single_active
from shared.bus.consume.batch import Delivery, StoppedError, held_by, lacked
from shared.bus.consume.copying import Copying
from shared.bus.consume.receiving.buffered_reader import Inbound
from shared.bus.consume.receiving.delivery_tags import DeliveryTags
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.subscription import Subscription
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.errors import UnderWay

IDLE_SECONDS = 0.5  # how long to wait for a message, and so for a stop to be noticed
BUSY_SECONDS = 0.005  # the same while a batch is in hand and there is room for more
COPYING_SECONDS = 0.02  # the same while copies are not confirmed
LAST_COPIES_SECONDS = 5.0  # how long a stop waits for those
ASK_SECONDS = 1.0  # between two looks at what is under way, while nothing else is to be done
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between looks for what is needed, such as mail
TURN_SECONDS = 0.5  # between two looks whether the queue has no consumer any more

# A message that was delivered so often without an answer may be what kills its consumer. It is
# handled alone, and at the start nothing else is taken beside it: a crash then costs a delivery of
# its own limit and nobody else's.
SUSPICIOUS_DELIVERIES = 3
KEPT = (StoppedError, UnderWay)  # what has neither failed nor been done


class Owner(Protocol):
    """What a consumer has beyond one connection."""

    subscription: Subscription
    standing: Standing
    requeuer: Requeuer
    worker: ThreadPoolExecutor
    stopping: threading.Event
    last_turn: float
    unacknowledged: int
    handled: int
    reached: datetime | None

    def handle(self, batch: Sequence[Delivery]) -> dict[int, Exception]:
        """Handle a batch, in the worker; returns what failed, by delivery tag."""


class Session:
    """One connection's worth of consuming: all its delivery tags die with it."""

    def __init__(self, consumer: Owner, connection: Connection) -> None:
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
        self._copying = Copying(consumer.requeuer)
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
        stopping = self._consumer.stopping
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
        stopping, asks, pause = self._consumer.stopping, self._subscription, FIRST_DELAY
        while not stopping.is_set():
            looking = self._consumer.worker.submit(inbox.look, asks.consumer, asks.needs)
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
        while not self._consumer.stopping.is_set():
            self._consumer.last_turn = time.monotonic()
            self._beat()
            # Whoever takes its turn next works as well as the one who has it.
            self._consumer.standing.working()
            if single_active.begin(
                self._channel, self._subscription.queue, lambda: self._consume(prefetch=1)
            ):
                return
            self._consumer.stopping.wait(TURN_SECONDS)

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
        self._future = self._consumer.worker.submit(self._consumer.handle, batch)

    def _finish(self) -> None:
        future, self._future = self._future, None
        batch, self._in_hand = self._in_hand, ()
        if future is None:
            return
        failed = future.result()
        # What is kept goes back when the connection ends.
        kept = {tag for tag, error in failed.items() if isinstance(error, KEPT)}
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


def _deliveries(delivery: Delivery) -> int:
    count = delivery.incoming.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0
