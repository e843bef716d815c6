"""The number of messages and consumers of a queue, if the broker knows.

The broker waits 250 ms for a quorum queue's answer and then reports zero messages and consumers
(`rabbit_quorum_queue:stat`), which looks like an empty queue. So zeros that took long are no
answer, and the broker is asked again.
"""

import time
from typing import Any, NamedTuple

TOO_LONG = 0.2  # seconds; below the broker's 250 ms, since clocks differ
TIMEOUT = 60.0  # seconds


class NotKnownError(TimeoutError):
    """The queue does not answer the broker."""


class Count(NamedTuple):
    """The counts of a queue.

    Attributes:
        ready: messages that can be delivered; unacknowledged ones are not counted.
        consumers: consumers of the queue.
    """

    ready: int
    consumers: int


def of(channel: Any, queue: str, timeout: float = TIMEOUT) -> Count:
    """Return the counts of a queue, by a passive declare.

    Args:
        channel: an open channel of kombu.
        queue: its name.
        timeout: seconds after which the broker is not asked again.

    Raises:
        NotKnownError: the queue has not answered.
        amqp.exceptions.NotFound: there is no such queue; py-amqp has reopened the channel.
    """
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        declared = channel.queue_declare(queue, passive=True)
        found = Count(int(declared.message_count), int(declared.consumer_count))
        now = time.monotonic()
        if any(found) or now - asked < TOO_LONG:
            return found
        if now >= deadline:
            raise NotKnownError(f"{queue} does not answer: the broker is busy, or has lost it")
