"""Metrics of the bus: by queue in consumers, and of confirms in publishers.

A consumer observes batches and not messages: two observations for five hundred orders.
"""

import time
from collections import deque
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SAMPLE_SECONDS = 0.01
"""The shortest time between two observed confirms: at most a hundred a second."""

_handled = Counter("fellow_messages_handled", "Messages that are done.", ["queue"])
_retried = Counter(
    "fellow_messages_retried", "Messages sent to the retry ladder.", ["queue", "rung"]
)
_dead = Counter("fellow_messages_dead", "Messages given to the dead queue.", ["queue"])
_batch_messages = Histogram(
    "fellow_batch_messages",
    "Messages in a batch.",
    ["queue"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
_batch_seconds = Histogram(
    "fellow_batch_seconds", "Time to handle a batch, waiting included.", ["queue"], buckets=SECONDS
)
_age = Histogram(
    "fellow_message_age_seconds",
    "Age of the first message of a batch when the batch was done.",
    ["queue"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200),
)
_unacknowledged = Gauge(
    "fellow_messages_unacknowledged", "Messages received and not yet acknowledged.", ["queue"]
)
_in_hand = Gauge("fellow_batch_in_hand_seconds", "How long a batch is in hand; 0: none.", ["queue"])
working = Gauge(
    "fellow_working",
    "Whether a queue is consumed, or a connection is there to publish by.",
    ["part"],
    multiprocess_mode="livemin",
)
lacking = Gauge(
    "fellow_lacking",
    "Whether a batch is kept since something is away: mail, or the database.",
    ["part", "what"],
    multiprocess_mode="livemax",
)
_confirm_seconds = Histogram(
    "fellow_publish_confirm_seconds",
    "Time from a publish to its confirm; a sample.",
    ["publisher"],
    buckets=SECONDS,
)
_missed = Counter(
    "fellow_journal_missed", "Messages on the bus that the journal is not known to have."
)
LATELY = 3_600.0
"""The window of `missed_lately`, in seconds."""
_lately: deque[tuple[float, int]] = deque(maxlen=10_000)


def miss(messages: int) -> None:
    """Count published messages that the journal has not confirmed."""
    _missed.inc(messages)
    _lately.append((time.monotonic(), messages))


def missed_lately() -> int:
    """Return how many this process has counted within `LATELY`."""
    now = time.monotonic()
    return sum(messages for at, messages in tuple(_lately) if now - at < LATELY)


class QueueMetrics:
    """The metrics of one consumer.

    Args:
        queue: the name of its queue.
        unacknowledged: returns the number of its unacknowledged messages; called by a scrape.
    """

    def __init__(self, queue: str, unacknowledged: Callable[[], float]) -> None:
        self._queue = queue
        self._began: float | None = None
        self._handled = _handled.labels(queue)
        self._dead = _dead.labels(queue)
        self._batch_messages = _batch_messages.labels(queue)
        self._batch_seconds = _batch_seconds.labels(queue)
        self._age = _age.labels(queue)
        _unacknowledged.labels(queue).set_function(unacknowledged)
        _in_hand.labels(queue).set_function(self._seconds_in_hand)

    def begun(self) -> None:
        """Start the clock of a batch."""
        self._began = time.monotonic()

    def ended(self) -> None:
        """Stop the clock of the batch."""
        self._began = None

    def done(self, messages: int, failed: int, age: float) -> None:
        """Count a handled batch.

        Args:
            messages: their number.
            failed: how many of them failed.
            age: of the first message, in seconds.
        """
        self._handled.inc(messages - failed)
        self._batch_messages.observe(messages)
        self._batch_seconds.observe(self._seconds_in_hand())
        self._age.observe(max(age, 0.0))

    def requeued(self, rung: str | None) -> None:
        """Count a failed message.

        Args:
            rung: the name of its delay queue; None for the dead letter queue.
        """
        if rung is None:
            self._dead.inc()
        else:
            _retried.labels(self._queue, rung).inc()

    def _seconds_in_hand(self) -> float:
        began = self._began
        return 0.0 if began is None else time.monotonic() - began


class ConfirmMetrics:
    """The metrics of one publisher.

    Args:
        publisher: its name.
    """

    def __init__(self, publisher: str) -> None:
        self._seconds = _confirm_seconds.labels(publisher)
        self._next = 0.0

    def confirmed(self, sent_at: float) -> None:
        """Observe the time to a confirm; a sample at high rates.

        Args:
            sent_at: when the message was published, by the monotonic clock.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SAMPLE_SECONDS
            self._seconds.observe(now - sent_at)
