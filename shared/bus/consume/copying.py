"""Publish copies of failed messages without stopping the consumer.

A broker in an alarm confirms nothing, and neither does a delay queue that has lost its majority.
Closing the consumer's connection would have all unacknowledged messages delivered once more, and
after `DELIVERY_LIMIT` deliveries the broker dead-letters them. So each destination has its own
thread and connection; the originals stay unacknowledged until their copies are confirmed, and the
consumer goes on with the rest of its prefetch.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import structlog

from shared.bus.broker.kombu_connection import BrokerConnection
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Copy, Requeuer

CONFIRM_SECONDS = 600.0
"""How long a confirm is waited for before the copy is published again, which may double it."""
LOGGED_EVERY = 60.0
IDLE_SECONDS = 30.0
"""How long an unused connection is kept."""

log = structlog.get_logger()


class Copying:
    """The unconfirmed copies of one consumer connection.

    Args:
        requeuer: makes and publishes copies.
    """

    def __init__(self, requeuer: Requeuer) -> None:
        self._requeuer = requeuer
        self._lines: dict[str, _Line] = {}

    @property
    def is_busy(self) -> bool:
        """Whether any copy is unconfirmed."""
        return any(line.is_busy for line in self._lines.values())

    def add(self, failed: Sequence[tuple[Delivery, Exception]]) -> None:
        """Queue the copies of failed messages; they are published in this order by destination."""
        by_exchange: defaultdict[str, list[Copy]] = defaultdict(list)
        for delivery, error in failed:
            copy = self._requeuer.copy(delivery, error)
            by_exchange[copy.routed.exchange].append(copy)
        for exchange, copies in by_exchange.items():
            if exchange not in self._lines:
                self._lines[exchange] = _Line(self._requeuer, exchange)
            self._lines[exchange].put(copies)

    def safe(self) -> list[int]:
        """Return the tags of deliveries whose copies were confirmed since the last call."""
        return [tag for line in self._lines.values() for tag in line.safe()]

    def close(self) -> None:
        """Abandon unconfirmed copies; their originals go back to the queue."""
        for line in self._lines.values():
            line.close()


class _Line:
    """The copies for one exchange."""

    def __init__(self, requeuer: Requeuer, exchange: str) -> None:
        self._requeuer = requeuer
        self._exchange = exchange
        self._connection: BrokerConnection | None = None
        self._changed = threading.Condition()
        self._waiting: list[Copy] = []
        self._sent: Sequence[Copy] = ()
        self._safe: list[int] = []
        self._is_open = True
        self._why = "no confirm yet"
        self._logged_at = time.monotonic()
        name = f"{requeuer.queue}-to-{exchange}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._sent)

    def put(self, copies: Sequence[Copy]) -> None:
        with self._changed:
            if not self.is_busy:
                self._logged_at = time.monotonic()
            self._waiting += copies
            self._changed.notify()

    def safe(self) -> list[int]:
        with self._changed:
            safe, self._safe = self._safe, []
            late = len(self._waiting) + len(self._sent)
        if late and time.monotonic() - self._logged_at >= LOGGED_EVERY:
            self._logged_at = time.monotonic()
            log.error(
                "copies_not_confirmed",
                queue=self._requeuer.queue,
                to=self._exchange,
                messages=late,
                reason=self._why,
            )
        return safe

    def close(self) -> None:
        with self._changed:
            self._is_open = False
            self._changed.notify()

    def _run(self) -> None:
        pauses = self._requeuer.pauses()
        while copies := self._next():
            error: Exception | None
            try:
                if self._connection is None:
                    self._connection = self._requeuer.connection()
                safe, error = self._requeuer.publish(
                    self._connection, copies, CONFIRM_SECONDS, lambda: self._is_open
                )
            except Exception as failure:  # noqa: BLE001 - tried again
                safe, error = frozenset(), failure
            with self._changed:
                self._safe += [copy.tag for copy in copies if copy.tag in safe]
                self._waiting[:0] = [copy for copy in copies if copy.tag not in safe]
                self._sent = ()
            if error is None:
                pauses.worked()
                continue
            # Without the lock, which the consumer's loop takes at each turn.
            if self._connection is not None:
                self._connection.leave()
            self._disconnect()
            with self._changed:
                self._why = f"{type(error).__name__}: {error}"
                self._changed.wait_for(lambda: not self._is_open, pauses.after_failure())
        self._disconnect()

    def _next(self) -> Sequence[Copy]:
        """Wait for copies, closing an idle connection; return none once this is closed."""
        with self._changed:
            has_come = self._changed.wait_for(self._is_wanted, IDLE_SECONDS)
        if not has_come:
            self._disconnect()
        with self._changed:
            self._changed.wait_for(self._is_wanted)
            self._sent, self._waiting = (self._waiting, []) if self._is_open else ((), [])
            return self._sent

    def _is_wanted(self) -> bool:
        return bool(self._waiting) or not self._is_open

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Without connection.close, which a broker in an alarm does not read.
            connection.collect()
