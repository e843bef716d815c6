"""How many messages and consumers a queue has, when the broker knows.

A quorum queue is asked by the broker, which waits 250 ms for its answer and then says that there is
nothing: no message, no consumer (`rabbit_quorum_queue:stat`; RabbitMQ has no other word for it). So
"nothing" that was long in coming is no answer, and is asked for again.
"""

import time
from typing import Any, NamedTuple

TOO_LONG = 0.2  # seconds; of the broker's 250 ms some may have passed on another clock
PATIENCE = 60.0


class NotKnownError(TimeoutError):
    """The queue does not answer the broker; the message says which."""


class Count(NamedTuple):
    """What a queue has.

    Attributes:
        ready: how many messages wait, beside those that somebody has in hand.
        consumers: how many consume it.
    """

    ready: int
    consumers: int


def of(channel: Any, queue: str, patience: float = PATIENCE) -> Count:
    """Ask how much a queue has.

    Args:
        channel: an open channel of kombu's.
        queue: its name.
        patience: seconds after which it is not asked again.

    Raises:
        NotKnownError: it has not answered.
        amqp.exceptions.NotFound: there is no such queue; py-amqp has opened the channel again.
    """
    deadline = time.monotonic() + patience
    while True:
        asked = time.monotonic()
        declared = channel.queue_declare(queue, passive=True)
        found = Count(int(declared.message_count), int(declared.consumer_count))
        now = time.monotonic()
        if any(found) or now - asked < TOO_LONG:
            return found
        if now >= deadline:
            raise NotKnownError(f"{queue} does not answer: the broker is busy, or has lost it")
