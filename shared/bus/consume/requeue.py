"""Copies of failed messages: to the retry ladder, or to the dead queue with the reason readable.

On a connection of its own: publishing on the one that consumes would re-enter its callbacks.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from amqp import Message as AmqpMessage
from kombu import Connection

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

CONFIRM_TIMEOUT = 5.0  # seconds
REASON_LENGTH = 500
REASONS_KEPT = 10
"""How many of its reasons a message carries, the last ones."""

log = structlog.get_logger()


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

    def requeue(self, delivery: Delivery, error: Exception) -> str:
        """Publish the copy of one failed message; returns the exchange it went to.

        Raises:
            Exception: it is not known to be safe there; the original must not be acknowledged.
        """
        attempt = min(delivery.incoming.attempt, MAX_ATTEMPTS) + 1
        decision = decide(error, attempt, self._rng)
        rung = decision.rung.name if isinstance(decision, RetryAfter) else None
        exchange = rung or topology.DEAD
        reason = printable(f"{type(error).__name__}: {error}")
        try:
            self._publish(self._copy(delivery, attempt, error, reason), exchange)
        except BaseException:
            # After a timeout the channel is out of step with its confirms.
            self.close()
            raise
        self._count(rung)
        log.log(
            30 if isinstance(error, Permanent | Retry) else 40,
            "message_failed",
            queue=self._queue.name,
            message_id=str(delivery.incoming.properties.get("message_id") or ""),
            attempt=attempt,
            to=exchange,
            reason=type(error).__name__,
            exc_info=None if isinstance(error, Permanent | Retry) else error,
        )
        return exchange

    def close(self) -> None:
        """Drop the connection; the next copy opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _copy(self, delivery: Delivery, attempt: int, error: Exception, reason: str) -> AmqpMessage:
        incoming = delivery.incoming
        now = datetime.now(UTC).isoformat(timespec="seconds")
        before = incoming.headers.get(REASONS_HEADER)
        # Of a stranger's list, no more than ours could have in it.
        reasons = [
            str(line)[: 2 * REASON_LENGTH] for line in (before if isinstance(before, list) else ())
        ]
        first = incoming.headers.get(FIRST_FAILED_AT_HEADER)
        note = {HAPPENED_HEADER: True} if isinstance(error, Happened) else {}
        return again(
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

    def _publish(self, message: AmqpMessage, exchange: str) -> None:
        if self._connection is None:
            self._connection = connect(
                self._amqp_url,
                timeout=CONFIRM_TIMEOUT,
                # No heartbeat: it is used in bursts and checked by each confirm.
                transport_options={
                    "read_timeout": CONFIRM_TIMEOUT,
                    "write_timeout": CONFIRM_TIMEOUT,
                },
            )
        channel: Any = self._connection.default_channel
        channel.basic_publish_confirm(
            message,
            exchange=exchange,
            routing_key=self._queue.name,
            mandatory=True,
            confirm_timeout=CONFIRM_TIMEOUT,
        )


def printable(text: str) -> str:
    """`text` in one line of at most `REASON_LENGTH` printable characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:REASON_LENGTH]
