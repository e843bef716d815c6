"""Copies of failed messages on their way: what is not confirmed holds up nobody else.

A broker in an alarm confirms nothing, nor does one rung of the ladder that has lost its majority,
for as long as that lasts. Who dropped the consumer's connection over it would have all that is in
hand delivered once more, and after `DELIVERY_LIMIT` times the broker takes a message that waits for
its copy for one that kills its consumer. So each destination has a thread and a connection of its
own, the originals stay in hand, and the consumer goes on with what else its prefetch lets through.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import structlog

from shared.bus.broker.kombu_connection import BrokerConnection
from shared.bus.consume.batch import Delivery
from shared.bus.consume.requeue import Copy, Requeuer

PATIENCE = 600.0
"""Seconds until what is not confirmed is sent again: it may arrive twice, so not soon."""
TOLD_EVERY = 60.0
IDLE_SECONDS = 30.0
"""After which a connection that nothing goes over is closed."""

log = structlog.get_logger()


class Copying:
    """The copies of one connection's worth of consuming.

    Args:
        requeuer: makes and publishes them.
    """

    def __init__(self, requeuer: Requeuer) -> None:
        self._requeuer = requeuer
        self._lines: dict[str, _Line] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a copy is not confirmed yet."""
        return any(line.is_busy for line in self._lines.values())

    def add(self, failed: Sequence[tuple[Delivery, Exception]]) -> None:
        """Have failed messages copied; those of one destination in this order."""
        by_exchange: defaultdict[str, list[Copy]] = defaultdict(list)
        for delivery, error in failed:
            copy = self._requeuer.copy(delivery, error)
            by_exchange[copy.routed.exchange].append(copy)
        for exchange, copies in by_exchange.items():
            if exchange not in self._lines:
                self._lines[exchange] = _Line(self._requeuer, exchange)
            self._lines[exchange].put(copies)

    def safe(self) -> list[int]:
        """The tags of the deliveries whose copies were confirmed since this was asked last."""
        return [tag for line in self._lines.values() for tag in line.safe()]

    def close(self) -> None:
        """Give up what is not confirmed: the originals go back."""
        for line in self._lines.values():
            line.close()


class _Line:
    """What goes to one exchange."""

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
        self._told_at = time.monotonic()
        name = f"{requeuer.queue}-to-{exchange}"
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting or self._sent)

    def put(self, copies: Sequence[Copy]) -> None:
        with self._changed:
            if not self.is_busy:
                self._told_at = time.monotonic()
            self._waiting += copies
            self._changed.notify()

    def safe(self) -> list[int]:
        with self._changed:
            safe, self._safe = self._safe, []
            late = len(self._waiting) + len(self._sent)
        if late and time.monotonic() - self._told_at >= TOLD_EVERY:
            self._told_at = time.monotonic()
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
                    self._connection, copies, PATIENCE, lambda: self._is_open
                )
            except Exception as failure:  # noqa: BLE001 - whatever it was, it is tried again
                safe, error = frozenset(), failure
            with self._changed:
                self._safe += [copy.tag for copy in copies if copy.tag in safe]
                self._waiting[:0] = [copy for copy in copies if copy.tag not in safe]
                self._sent = ()
            if error is None:
                pauses.worked()
                continue
            # Not under the lock, which the consumer takes at each turn.
            if self._connection is not None:
                self._connection.leave()
            self._disconnect()
            with self._changed:
                self._why = f"{type(error).__name__}: {error}"
                self._changed.wait_for(lambda: not self._is_open, pauses.after_failure())
        self._disconnect()

    def _next(self) -> Sequence[Copy]:
        """What is to be sent; nothing at the end. Meanwhile no connection is kept for long."""
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
            # Without goodbye: in an alarm the broker reads none.
            connection.collect()
