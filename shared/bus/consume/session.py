"""Consuming over one connection: receive, hand batches to the worker thread, acknowledge."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import structlog
from kombu import Connection

from shared.bus.broker.kombu_connection import user_of
from shared.bus.broker.standing import Standing
from shared.bus.consume import inbox, single_active
from shared.bus.consume.batch import Delivery, StoppedError, held_by, lacked
from shared.bus.consume.copying import Copying
from shared.bus.consume.receiving.buffered_reader import BufferedReader
from shared.bus.consume.receiving.delivery_tags import DeliveryTags
from shared.bus.consume.receiving.sources import Sources
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.subscription import Subscription
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.errors import UnderWay

IDLE_SECONDS = 0.5  # timeout of a read when idle; a stop is noticed within it
BUSY_SECONDS = 0.005  # the same while the worker has a batch and the next one has room
COPYING_SECONDS = 0.02  # the same while copies are unconfirmed
LAST_COPIES_SECONDS = 5.0  # how long a stop waits for the confirms of copies
ASK_SECONDS = 1.0  # interval at which `UnderWay` messages are handled again when idle
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between checks of `Subscription.needs`
LONG_SECONDS = 60.0  # after which a batch that has not ended is reported
LONG = (
    "What it has begun has not ended for a minute: a statement waits for a lock, or a handler hangs"
)
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""The most bytes of bodies in a batch of several: each is in memory several times meanwhile."""
TURN_SECONDS = 0.5  # between two checks whether the queue of an ordered consumer is free

# A message delivered this often without an acknowledgement may be what kills the process. It is
# handled alone: a crash then adds to its delivery count only.
SUSPICIOUS_DELIVERIES = 3
KEPT = (StoppedError, UnderWay)  # outcomes of messages that are neither done nor failed
log = structlog.get_logger()


class Owner(Protocol):
    """The part of a consumer that outlives a connection."""

    subscription: Subscription
    standing: Standing
    requeuer: Requeuer
    worker: ThreadPoolExecutor
    stopping: threading.Event
    last_turn: float
    unacknowledged: int
    handled: int
    reached: datetime | None
    reached_in: Mapping[str, datetime]
    is_refused: bool

    def take_turn(self, turn: UUID) -> None:
        """Handle later batches under this turn of `single_active`."""

    def handle(self, batch: Sequence[Delivery]) -> dict[int, Exception]:
        """Handle a batch in the worker thread; return the failures by delivery tag."""


class Session:
    """Consumes over one connection; its delivery tags are invalid once that is closed."""

    def __init__(self, consumer: Owner, connection: Connection) -> None:
        self._consumer = consumer
        self._subscription = consumer.subscription
        self._connection = connection
        self._channel = connection.channel()
        self._believed = believed(self._subscription.queue.name, user_of(connection))
        self._reader = BufferedReader(connection)
        self._tags = DeliveryTags()
        self._received: deque[Delivery] = deque()
        self._oldest_at = 0.0  # when the first of those was received
        self._in_hand: Sequence[Delivery] = ()
        self._under_way: list[Delivery] = []
        self._asked_at = 0.0  # when those were handled last
        self._future: Future[dict[int, Exception]] | None = None
        self._began_at = 0.0
        self._copying = Copying(consumer.requeuer)
        self._sources = Sources(
            consumer, connection, self._channel, self._on_message, lambda: bool(self._received)
        )
        self._last_heartbeat = time.monotonic()

    def begin(self) -> None:
        """Start consuming, once what the handler needs is there.

        An ordered queue waits until no other consumer is active.
        """
        if not self._wait_for_needs():
            return
        if self._subscription.in_order:
            self._wait_for_turn()
        else:
            self._sources.begin()
        self._consumer.standing.working()

    def run(self) -> None:
        """Consume until `stopping` is set; return with nothing in hand."""
        stopping = self._consumer.stopping
        while not stopping.is_set():
            self._turn()
            if self._future is None and self._is_ready() and not stopping.is_set():
                self._submit(self._next_batch())
            elif not self._has_any() and self._sources.is_dry:
                self._sources.advance()
        self._end()
        if self._under_way:
            # Their outcome may be known before the stop's time is used up.
            self._submit([])
            self._end()

    def _has_any(self) -> bool:
        return bool(self._received or self._under_way or self._future)

    def _turn(self) -> None:
        self._consumer.last_turn = time.monotonic()
        self._receive()
        self._keep_alive()
        if self._future is not None:
            if self._future.done():
                self._finish()
            else:
                self._report_if_stuck(self._began_at)
        self._acknowledge(self._copying.safe())

    def _end(self) -> None:
        while self._future is not None:
            self._turn()
        until = time.monotonic() + LAST_COPIES_SECONDS
        while self._copying.is_busy and time.monotonic() < until:
            self._turn()
        self._acknowledge(self._copying.safe())

    def _wait_for_needs(self) -> bool:
        """Wait for the database and `Subscription.needs`; return False if a stop came first.

        Nothing is consumed meanwhile: each connection that ends with messages in hand raises their
        delivery counts, and `DELIVERY_LIMIT` restarts in one outage would dead-letter them.
        """
        stopping, asks, pause = self._consumer.stopping, self._subscription, FIRST_DELAY
        while not stopping.is_set():
            looking = self._consumer.worker.submit(inbox.probe, asks.consumer, asks.needs)
            away = looking.result() if self._idle_until(looking) else None
            if away is None:
                self._consumer.standing.released()
                return not stopping.is_set()
            if not self._consumer.standing.status.is_well:
                self._consumer.standing.working()
            reason = held_by(away, "Nothing is taken from the queue")
            self._consumer.standing.holding(reason, lacked(away))
            until = time.monotonic() + pause
            while time.monotonic() < until and not stopping.is_set():
                self._idle(min(pause, IDLE_SECONDS))
            pause = min(2 * pause, LONGEST_DELAY)
        return False

    def _idle(self, seconds: float) -> None:
        """Keep the connection alive while nothing is consumed."""
        self._consumer.last_turn = time.monotonic()
        if self._reader.wait(seconds):
            self._reader.read()
        self._keep_alive()

    def _idle_until(self, done: Future[Any]) -> bool:
        """Keep the connection alive until a future is done, or a stop; return whether it is."""
        began = time.monotonic()
        while not done.done() and not self._consumer.stopping.is_set():
            self._idle(BUSY_SECONDS)
            self._report_if_stuck(began)
        return done.done()

    def _report_if_stuck(self, began: float) -> None:
        """Report work that has run for a minute: waiting for a lock raises no error."""
        if time.monotonic() - began >= LONG_SECONDS:
            self._consumer.standing.stuck(LONG)

    def _in_worker(self, act: Callable[[], None]) -> bool:
        """Run something that may block in the worker thread; return False if a stop came first."""
        acting = self._consumer.worker.submit(act)
        if not self._idle_until(acting):
            return False
        acting.result()
        return True

    def _wait_for_turn(self) -> None:
        while not self._consumer.stopping.is_set():
            self._consumer.last_turn = time.monotonic()
            self._keep_alive()
            # A process that stands by for the active one is healthy.
            self._consumer.standing.working()
            turn = single_active.begin(
                self._channel,
                self._subscription.queue,
                lambda: self._sources.consume_one_by_one(self._sources.names),
                self._in_worker,
            )
            if turn is not None:
                self._consumer.take_turn(turn)
                return
            self._consumer.stopping.wait(TURN_SECONDS)

    def close(self) -> None:
        """Close the connections that copies were published over."""
        self._copying.close()

    def abandon(self) -> list[Delivery]:
        """Wait for the transaction in the worker, after the connection was lost.

        Returns:
            The messages whose effect outside the database is not recorded yet. The others are
            delivered again, and the inbox knows those that were committed.
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

    def _on_message(self, message: Any) -> None:
        if not self._received:
            self._oldest_at = time.monotonic()
        tag, source = message.delivery_info["delivery_tag"], ""
        self._tags.received(tag)
        if len(self._sources.names) > 1:
            source = message.delivery_info["consumer_tag"].partition(" ")[0]
        self._received.append(Delivery(tag, RawDelivery.of(message, self._believed), source))
        self._consumer.unacknowledged += 1

    def _receive(self) -> None:
        try:
            if self._future is not None and len(self._received) >= self._subscription.batch_size:
                # The next batch is complete. Heartbeats have to be read all the same, or the client
                # takes the connection for dead; the prefetch bounds what else arrives.
                done, _ = wait((self._future,), timeout=IDLE_SECONDS)
                while not done and self._reader.wait(0):
                    self._reader.read()
            else:
                if self._reader.wait(self._read_timeout()):
                    self._reader.read()
                # Read what else has arrived, without a full timeout for each message.
                while len(self._received) < self._subscription.batch_size:
                    if not self._reader.wait(0.0005):
                        break
                    self._reader.read()
        except TimeoutError:
            pass

    def _acknowledge(self, tags: Sequence[int]) -> None:
        for tag, multiple in self._tags.settle(tags):
            self._channel.basic_ack(tag, multiple=multiple)
        self._consumer.unacknowledged -= len(tags)
        self._consumer.handled += len(tags)

    def _read_timeout(self) -> float:
        if self._future is not None:
            return BUSY_SECONDS
        if self._received:
            left = self._oldest_at + self._subscription.batch_seconds - time.monotonic()
            return min(max(left, 0.0005), IDLE_SECONDS)
        return COPYING_SECONDS if self._copying.is_busy else IDLE_SECONDS

    def _keep_alive(self) -> None:
        if time.monotonic() - self._last_heartbeat >= 1:
            self._last_heartbeat = time.monotonic()
            self._connection.heartbeat_check()
            self._sources.look_for_shards()

    def _is_ready(self) -> bool:
        if not self._received:
            return bool(self._under_way) and time.monotonic() - self._asked_at >= ASK_SECONDS
        if len(self._received) >= min(self._subscription.batch_size, self._sources.prefetch):
            return True
        return time.monotonic() - self._oldest_at >= self._subscription.batch_seconds

    def _next_batch(self) -> list[Delivery]:
        batch: list[Delivery] = []
        size = 0
        while self._received and len(batch) < self._subscription.batch_size:
            size += len(self._received[0].incoming.body)
            if batch and size > MAX_BATCH_BYTES:
                return batch  # what is left has waited long enough for the next batch
            suspicious = _deliveries(self._received[0]) >= SUSPICIOUS_DELIVERIES
            if suspicious and batch:
                break
            batch.append(self._received.popleft())
            if suspicious:
                break
        self._oldest_at = time.monotonic()
        return batch

    def _submit(self, batch: Sequence[Delivery]) -> None:
        if not (batch and _deliveries(batch[0]) >= SUSPICIOUS_DELIVERIES):
            batch, self._under_way = [*self._under_way, *batch], []
        self._in_hand = batch
        self._began_at = time.monotonic()
        self._future = self._consumer.worker.submit(self._consumer.handle, batch)

    def _finish(self) -> None:
        future, self._future = self._future, None
        batch, self._in_hand = self._in_hand, ()
        if future is None:
            return
        self._consumer.standing.moved()
        failed = future.result()
        stopped = [error for error in failed.values() if isinstance(error, StoppedError)]
        if stopped and not self._consumer.stopping.is_set():
            raise ConnectionError(f"the messages in hand are not ours any more: {stopped[0]}")
        # Messages in `kept` go back to the queue when the connection is closed.
        kept = {tag for tag, error in failed.items() if isinstance(error, KEPT)}
        self._under_way += [d for d in batch if isinstance(failed.get(d.tag), UnderWay)]
        self._asked_at = time.monotonic()
        self._copying.add(
            [(d, failed[d.tag]) for d in batch if d.tag in failed and d.tag not in kept]
        )
        may_advance = self._has_survived(batch, failed)
        if may_advance and not self._sources.is_done_trying:
            self._sources.cancel()  # or the acknowledgement would let one more message in
        self._acknowledge([delivery.tag for delivery in batch if delivery.tag not in failed])
        if batch[-1].incoming.attempt == 0:
            self._consumer.reached = batch[-1].incoming.stated_time or self._consumer.reached
        if len(self._sources.names) > 1:
            self._note_reached(batch)
        if may_advance:
            self._sources.advance()

    def _note_reached(self, batch: Sequence[Delivery]) -> None:
        last = {d.source: d.incoming for d in batch if d.source and not d.incoming.attempt}
        reached = {part: at for part, one in last.items() if (at := one.stated_time)}
        # Replaced, not changed: another thread reads it.
        self._consumer.reached_in = {**self._consumer.reached_in, **reached}

    def _has_survived(self, batch: Sequence[Delivery], failed: Mapping[int, Exception]) -> bool:
        """Whether the message that was taken alone did not kill the process."""
        # An ordered queue keeps its consumer, and its prefetch of 1: no two messages may share a
        # transaction.
        is_careful = self._sources.prefetch == 1 and not self._subscription.in_order
        self._sources.handled()
        # A message that stays in hand, until its effect or its copy is confirmed, was survived.
        stays = not isinstance(failed.get(batch[-1].tag), StoppedError | None)
        return is_careful and (stays or _deliveries(batch[-1]) < SUSPICIOUS_DELIVERIES)


def _deliveries(delivery: Delivery) -> int:
    count = delivery.incoming.headers.get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0
