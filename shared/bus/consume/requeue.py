"""Copies of failed messages: to the retry ladder, or to the dead queue with the reason readable.

On a connection of its own: publishing on the one that consumes would re-enter its callbacks.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from kombu import Connection

from shared.bus.broker import confirmed
from shared.bus.broker.confirmed import Published, Routed
from shared.bus.broker.kombu_connection import connect, credentials
from shared.bus.consume.batch import Delivery
from shared.bus.consume.copies import again
from shared.bus.consume.retry import MAX_ATTEMPTS, RetryAfter, decide
from shared.bus.contract import topology
from shared.bus.contract.errors import Happened, Permanent, Retry
from shared.bus.contract.headers import (
    ATTEMPT_HEADER,
    CONSUMER_HEADER,
    FAILED_AT_HEADER,
    FIRST_FAILED_AT_HEADER,
    HAPPENED_HEADER,
    QUEUE_HEADER,
    REASON_HEADER,
    REASONS_HEADER,
)

CONNECT_SECONDS = 5.0
CONFIRM_SECONDS = 10.0
"""For all copies of a batch: less than what a service is given to stop in."""
IDS_TOLD = 10
"""How many messages a line of the log names."""
REASON_LENGTH = 500
REASONS_KEPT = 10
"""How many of its reasons a message carries, the last ones."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Requeued:
    """What became of copies.

    Attributes:
        safe: the tags of the deliveries whose copy is confirmed; they may be acknowledged.
        error: why the others must not be; None when there are none.
    """

    safe: frozenset[int]
    error: Exception | None


class Requeuer:
    """Publishes the copies, each confirmed before the original may be acknowledged.

    Args:
        amqp_url: where to.
        queue: the queue that the messages come from.
        consumer: who failed on them.
        count: told of each copy: its rung, or None for the dead queue.
    """

    def __init__(
        self,
        amqp_url: str,
        queue: topology.Queue,
        consumer: str,
        count: Callable[[str | None], None],
    ) -> None:
        self._amqp_url = amqp_url
        self._queue = queue
        self._consumer = consumer
        self._count = count
        self._connection: Connection | None = None
        self._rng = random.Random()  # noqa: S311 - jitter

    def requeue(self, failed: Sequence[tuple[Delivery, Exception]]) -> Requeued:
        """Publish the copies of failed messages, in this order, and wait for the broker once.

        Args:
            failed: each delivery, and why it failed.
        """
        if not failed:
            return Requeued(frozenset(), None)
        copies = [self._copy(delivery, error) for delivery, error in failed]
        try:
            published = confirmed.publish(self._connected(), copies, CONFIRM_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing is known to be safe
            published = Published(frozenset(), error)
        if published.error is not None:
            self.close()
        safe = sorted(published.confirmed)
        self._tell([(*failed[place], copies[place]) for place in safe])
        return Requeued(frozenset(failed[place][0].tag for place in safe), published.error)

    def close(self) -> None:
        """Drop the connection; the next copy opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _copy(self, delivery: Delivery, error: Exception) -> Routed:
        incoming = delivery.incoming
        attempt = _attempt(delivery)
        decision = decide(error, attempt, self._rng)
        exchange = decision.rung.name if isinstance(decision, RetryAfter) else topology.DEAD
        reason = printable(f"{type(error).__name__}: {error}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        before = incoming.headers.get(REASONS_HEADER)
        # Of a stranger's list, no more than ours could have in it.
        reasons = [
            str(line)[: 2 * REASON_LENGTH] for line in (before if isinstance(before, list) else ())
        ]
        first = incoming.headers.get(FIRST_FAILED_AT_HEADER)
        note = {HAPPENED_HEADER: True} if isinstance(error, Happened) else {}
        copy = again(
            incoming,
            incoming.user_id,
            credentials(self._amqp_url)[0],
            note
            | {
                ATTEMPT_HEADER: attempt,
                REASON_HEADER: reason,
                QUEUE_HEADER: self._queue.name,
                CONSUMER_HEADER: self._consumer,
                FAILED_AT_HEADER: now,
                FIRST_FAILED_AT_HEADER: first
                if isinstance(first, str) and len(first) < 40
                else now,
                REASONS_HEADER: [*reasons, f"{now} {reason}"][-REASONS_KEPT:],
            },
        )
        return Routed(copy, exchange, self._queue.name)

    def _tell(self, safe: Sequence[tuple[Delivery, Exception, Routed]]) -> None:
        """Count each copy, and write a line for all that failed alike."""
        alike: dict[tuple[type[Exception], str], list[tuple[Delivery, Exception]]] = {}
        for delivery, error, copy in safe:
            self._count(None if copy.exchange == topology.DEAD else copy.exchange)
            alike.setdefault((type(error), copy.exchange), []).append((delivery, error))
        for (kind, exchange), those in alike.items():
            is_foreseen = issubclass(kind, Permanent | Retry)
            log.log(
                30 if is_foreseen else 40,
                "message_failed",
                queue=self._queue.name,
                messages=len(those),
                message_ids=[_id(delivery) for delivery, _ in those[:IDS_TOLD]],
                attempt=_attempt(those[0][0]),
                to=exchange,
                reason=kind.__name__,
                exc_info=None if is_foreseen else those[0][1],
            )

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(
                self._amqp_url,
                timeout=CONNECT_SECONDS,
                # No heartbeat: it is used in bursts and checked by each confirm.
                transport_options={
                    "read_timeout": CONFIRM_SECONDS,
                    "write_timeout": CONFIRM_SECONDS,
                },
            )
        return self._connection


def _attempt(delivery: Delivery) -> int:
    return min(delivery.incoming.attempt, MAX_ATTEMPTS) + 1


def _id(delivery: Delivery) -> str:
    return str(delivery.incoming.properties.get("message_id") or "")


def printable(text: str) -> str:
    """`text` in one line of at most `REASON_LENGTH` printable characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:REASON_LENGTH]
