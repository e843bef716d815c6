"""What is counted of the bus: per queue in a consumer, confirms in a publisher.

A consumer counts by the batch and not by the message: two observations for five hundred orders.
"""

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SAMPLE_SECONDS = 0.01
"""The least time between two confirms that are observed: at most a hundred a second are."""

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


class QueueMetrics:
    """What one consumer reports.

    Args:
        queue: its name.
        unacknowledged: how many messages it holds now; asked when somebody looks.
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
        """A batch was begun."""
        self._began = time.monotonic()

    def ended(self) -> None:
        """The batch is in hand no more, whatever became of it."""
        self._began = None

    def done(self, messages: int, failed: int, age: float) -> None:
        """The batch in hand was handled.

        Args:
            messages: how many.
            failed: how many of them.
            age: of its first message, in seconds.
        """
        self._handled.inc(messages - failed)
        self._batch_messages.observe(messages)
        self._batch_seconds.observe(self._seconds_in_hand())
        self._age.observe(max(age, 0.0))

    def requeued(self, rung: str | None) -> None:
        """A message failed.

        Args:
            rung: of the retry ladder; None for the dead queue.
        """
        if rung is None:
            self._dead.inc()
        else:
            _retried.labels(self._queue, rung).inc()

    def _seconds_in_hand(self) -> float:
        began = self._began
        return 0.0 if began is None else time.monotonic() - began


class ConfirmMetrics:
    """What one publisher reports.

    Args:
        publisher: its name.
    """

    def __init__(self, publisher: str) -> None:
        self._seconds = _confirm_seconds.labels(publisher)
        self._next = 0.0

    def confirmed(self, sent_at: float) -> None:
        """The broker confirmed a message; most of many are not looked at.

        Args:
            sent_at: when it was published, on the monotonic clock.
        """
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SAMPLE_SECONDS
            self._seconds.observe(now - sent_at)
