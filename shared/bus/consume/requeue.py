"""Make and publish copies of failed messages, to a delay queue or the dead letter queue.

Over a separate connection: publishing over the consumer's would re-enter its callbacks.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from kombu import Connection

from shared.bus.broker import confirmed
from shared.bus.broker.addresses import Pauses, credentials, of
from shared.bus.broker.confirmed import Routed
from shared.bus.broker.kombu_connection import BrokerConnection, connect
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
WRITE_SECONDS = 10.0
IDS_LOGGED = 10
"""How many message ids a log line has."""
REASON_LENGTH = 500
REASONS_KEPT = 10
"""How many of its last reasons a message carries."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a failed message.

    Attributes:
        delivery: the original.
        error: why it failed.
        routed: the copy and its exchange and routing key.
    """

    delivery: Delivery
    error: Exception
    routed: Routed

    @property
    def tag(self) -> int:
        """The original's delivery tag."""
        return self.delivery.tag


class Requeuer:
    """Makes and publishes copies; an original is acknowledged after its copy was confirmed.

    Args:
        amqp_url: the broker's addresses.
        queue: the queue of the messages.
        consumer: the name of the consumer that failed.
        count: called for each copy with its delay queue, or None for the dead letter queue.
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
        self._rng = random.Random()  # noqa: S311 - jitter

    @property
    def queue(self) -> str:
        """The queue that the messages come from."""
        return self._queue.name

    def pauses(self) -> Pauses:
        """Return the delays between attempts to connect and publish."""
        return Pauses(len(of(self._amqp_url)))

    def connection(self) -> BrokerConnection:
        """Return a new connection to publish over; one address is tried.

        Raises:
            Exception: of kombu, py-amqp or the system.
        """
        return connect(
            self._amqp_url,
            timeout=CONNECT_SECONDS,
            tries=1,
            # No heartbeat: it is used in bursts, and the kernel reports a broker that is gone.
            transport_options={"read_timeout": WRITE_SECONDS, "write_timeout": WRITE_SECONDS},
        )

    def publish(
        self,
        connection: Connection,
        copies: Sequence[Copy],
        seconds: float,
        is_wanted: Callable[[], bool],
    ) -> tuple[frozenset[int], Exception | None]:
        """Publish copies in this order and wait for their confirms.

        Args:
            connection: from `connection`.
            copies: the copies.
            seconds: the timeout of the confirms.
            is_wanted: asked while waiting; False ends it.

        Returns:
            The tags of deliveries whose copy is confirmed, and the error of the others, or None if
            there are no others.
        """
        routed = [copy.routed for copy in copies]
        published = confirmed.publish(connection, routed, seconds, is_wanted)
        safe = [copies[place] for place in sorted(published.confirmed)]
        self._tell(safe)
        return frozenset(copy.tag for copy in safe), published.error

    def copy(self, delivery: Delivery, error: Exception) -> Copy:
        """Return the copy of a failed message and its destination.

        Args:
            delivery: the message.
            error: why it failed.
        """
        incoming = delivery.incoming
        attempt = _attempt(delivery)
        decision = decide(error, attempt, self._rng)
        exchange = decision.rung.name if isinstance(decision, RetryAfter) else topology.DEAD
        reason = printable(f"{type(error).__name__}: {error}")
        died = datetime.now(UTC)
        now = died.isoformat(timespec="seconds")
        before = incoming.headers.get(REASONS_HEADER)
        # A sender may have made this list: bounded as one of ours is.
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
                # A message that was done has not failed: it has all attempts left to be recorded.
                ATTEMPT_HEADER: incoming.attempt if note else attempt,
                REASON_HEADER: reason,
                QUEUE_HEADER: self._queue.name,
                CONSUMER_HEADER: self._consumer,
                # Distinguishes this death from the next one of the same message.
                FAILED_AT_HEADER: died.isoformat(timespec="microseconds"),
                FIRST_FAILED_AT_HEADER: first
                if isinstance(first, str) and len(first) < 40
                else now,
                REASONS_HEADER: [*reasons, f"{now} {reason}"][-REASONS_KEPT:],
            },
        )
        return Copy(delivery, error, Routed(copy, exchange, self._queue.name))

    def _tell(self, safe: Sequence[Copy]) -> None:
        """Count each copy, and log one line for all that failed alike."""
        alike: dict[tuple[type[Exception], str], list[Copy]] = {}
        for copy in safe:
            exchange = copy.routed.exchange
            self._count(None if exchange == topology.DEAD else exchange)
            alike.setdefault((type(copy.error), exchange), []).append(copy)
        for (kind, exchange), those in alike.items():
            is_foreseen = issubclass(kind, Permanent | Retry)
            log.log(
                30 if is_foreseen else 40,
                "message_failed",
                queue=self._queue.name,
                messages=len(those),
                message_ids=[_id(copy.delivery) for copy in those[:IDS_LOGGED]],
                attempt=_attempt(those[0].delivery),
                to=exchange,
                reason=kind.__name__,
                exc_info=None if is_foreseen else those[0].error,
            )


def _attempt(delivery: Delivery) -> int:
    return min(delivery.incoming.attempt, MAX_ATTEMPTS) + 1


def _id(delivery: Delivery) -> str:
    return str(delivery.incoming.properties.get("message_id") or "")


def printable(text: str) -> str:
    """`text` in one line of at most `REASON_LENGTH` printable characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:REASON_LENGTH]
