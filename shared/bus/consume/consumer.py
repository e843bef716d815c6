"""The consumer runtime: one subscription, from the queue to the acknowledgement.

Two threads. This one owns the AMQP connection: it receives up to the prefetch, keeps heartbeats
alive and acknowledges. The other runs transactions, one batch at a time, so that a slow or absent
database never costs the connection.

Traps of kombu 5.7 and py-amqp 5.4 that shape it: heartbeats are off unless
`Connection(heartbeat=)` is given and somebody calls `heartbeat_check`; `ConsumerMixin.run()` does
not notice a stop while the broker is down; a changed prefetch counts for new consumers only.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from shared import versions
from shared.bus.broker import addresses, declaration
from shared.bus.broker.addresses import Pauses
from shared.bus.broker.kombu_connection import connect, server_version
from shared.bus.broker.standing import Standing
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Requeuer
from shared.bus.consume.session import KEPT, Session
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.consume.traced import batches_class
from shared.bus.metrics import QueueMetrics


class Consumer:
    """Runs one subscription until it is told to stop.

    Args:
        amqp_url: where the queue is: one address or several.
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
        # What was under way outside the database when the last connection was lost.
        self._left: list[Delivery] = []

    def run(self) -> None:
        """Consume, and reconnect as often as it takes, until told to stop."""
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
            except Exception as error:  # noqa: BLE001 - whatever it was, a new connection is the cure
                self.standing.failed(error, where)
                if session is not None:
                    self._left = session.abandon() or self._left
                    self._batches.lost()
            if session is not None:
                session.close()
            self.unacknowledged = 0
            self.last_turn = time.monotonic()
            self.stopping.wait(pauses.after_failure())
        if self._left:
            # Nobody else would know what has become of it, and it would be done again.
            self.worker.submit(self._write_down, self._left).exception()
        self.worker.shutdown(wait=False)

    def _write_down(self, left: Sequence[Delivery]) -> None:
        """Run in the other thread. What has not happened is tried by whoever has it by now."""
        if happened := self._batches.happened(left):
            self.handle(happened)

    def handle(self, batch: Sequence[Delivery]) -> dict[int, Exception]:
        """Handle a batch, in the other thread; returns what failed, by delivery tag."""
        self._metrics.begun()
        try:
            failed = self._batches.run(batch)
            age = (datetime.now(UTC) - batch[0].incoming.time).total_seconds()
            kept = sum(isinstance(error, KEPT) for error in failed.values())
            self._metrics.done(len(batch) - kept, len(failed) - kept, age)
        finally:
            self._metrics.ended()
        return failed
