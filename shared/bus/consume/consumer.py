"""The consumer runtime: runs one subscription, from the queue to the acknowledgement.

Two threads: the consumer's own has the AMQP connection, receives up to the prefetch, sends
heartbeats and acknowledges. The worker runs transactions, one batch at a time, so that a slow or
unreachable database never costs the connection.

Limits of kombu 5.7 and py-amqp 5.4 that shape it: heartbeats are off unless
`Connection(heartbeat=)` is given and `heartbeat_check` is called; `ConsumerMixin.run()` does not
notice a stop while the broker is down; a changed prefetch applies to new consumers only.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

from shared import versions
from shared.bus.broker import addresses, declaration
from shared.bus.broker.addresses import Pauses
from shared.bus.broker.kombu_connection import connect, server_version
from shared.bus.broker.standing import Standing
from shared.bus.consume import single_active
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.session import KEPT, Session
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.consume.traced import batches_class
from shared.bus.metrics import QueueMetrics


class Consumer:
    """Runs one subscription until `stopping` is set.

    Args:
        amqp_url: one address of the broker or several.
        heartbeat: of the connection, in seconds.
        subscription: the queue and what is done with its messages.
        stopping: makes `run` return; the batch in hand is finished, other messages go back.
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
        """When the receive loop last turned, by the monotonic clock; for liveness."""
        self.unacknowledged = 0
        """How many received messages are unacknowledged."""
        self.handled = 0
        """How many messages were acknowledged so far."""
        self.reached: datetime | None = None
        """The stated time of the last handled message that was no retry."""
        self.reached_in: Mapping[str, datetime] = {}
        """The same by shard, where the queue has shards."""
        self.is_refused = False
        """Whether the broker has refused the shards; see `receiving.sources`."""
        self.standing = Standing(subscription.queue.name)
        self._amqp_url = amqp_url
        self._heartbeat = heartbeat
        self.stopping = stopping
        self._batches = batches_class()(
            subscription.consumer,
            decoding(subscription),
            subscription.handle,
            stopping,
            self.standing,
            keyed=subscription.keyed,
        )
        self._metrics = QueueMetrics(subscription.queue.name, lambda: self.unacknowledged)
        self.requeuer = Requeuer(
            amqp_url, subscription.queue, subscription.consumer, self._metrics.requeued
        )
        self.worker = ThreadPoolExecutor(1, thread_name_prefix=f"{subscription.queue.name}-work")
        # Messages under way outside the database when the last connection was lost.
        self._left: list[Delivery] = []

    def run(self) -> None:
        """Consume, and reconnect after any failure, until `stopping` is set."""
        among = addresses.of(self._amqp_url)
        pauses = Pauses(len(among))
        while not self.stopping.is_set():
            session: Session | None = None
            where = addresses.place(among.round()[0])
            try:
                with connect(
                    self._amqp_url,
                    timeout=5,
                    tries=1,
                    heartbeat=self._heartbeat,
                    transport_options={"read_timeout": 30, "write_timeout": 30},
                ) as connection:
                    where = connection.place
                    declaration.ensure(connection, self.subscription.queue)
                    session = Session(self, connection)
                    versions.warn_once("RabbitMQ", server_version(connection))
                    self.standing.where = where
                    session.begin()
                    pauses.worked()
                    session.run()
            except Exception as error:  # noqa: BLE001 - a new connection cures it
                self.standing.failed(error, where)
                if session is not None:
                    self._batches.lose()
                    self._left = session.abandon() or self._left
                    self._batches.lost()
            if session is not None:
                session.close()
            self.unacknowledged = 0
            self.last_turn = time.monotonic()
            self.stopping.wait(pauses.after_failure())
        if self._left:
            # No other process would know their outcome, and their effects would be repeated.
            self.worker.submit(self._write_down, self._left).exception()
        self.worker.shutdown(wait=False)

    def _write_down(self, left: Sequence[Delivery]) -> None:
        """Record effects that have happened; the other messages are delivered elsewhere."""
        if happened := self._batches.happened(left):
            self.handle(happened)

    def take_turn(self, turn: UUID) -> None:
        """Handle later batches under this turn of `single_active`, and none once it is over."""
        queue = self.subscription.queue.name
        self._batches.is_ours = lambda session: single_active.is_turn(session, queue, turn)

    def handle(self, batch: Sequence[Delivery]) -> dict[int, Exception]:
        """Handle a batch in the worker thread; return the failures by delivery tag."""
        self._metrics.begun()
        try:
            failed = self._batches.run(batch)
            age = (datetime.now(UTC) - batch[0].incoming.time).total_seconds()
            kept = sum(isinstance(error, KEPT) for error in failed.values())
            self._metrics.done(len(batch) - kept, len(failed) - kept, age)
        finally:
            self._metrics.ended()
        return failed
