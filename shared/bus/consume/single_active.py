"""One active consumer at a time, for queues whose messages must take effect in their order.

What RabbitMQ's `x-single-active-consumer` does; but that is an argument of the queue, and a queue
that exists cannot get it. A consumer begins when the queue has none. When a connection ends the
queue drops its consumer and takes back what that one had, in one step and in the old order, so who
begins then misses nothing. That two do not look and begin at once, a lock in the database sees to.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from shared.bus.broker import queue_counts
from shared.bus.contract import topology
from shared.db.session import transaction

PATIENCE = 1.0  # seconds, for the queue's answer; it is asked again
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")


def begin(channel: Any, queue: topology.Queue, consume: Callable[[], None]) -> bool:
    """Consume a queue, unless it has a consumer.

    Args:
        channel: an open channel of kombu's.
        queue: which.
        consume: begins; when it returns the broker has said that it did.

    Returns:
        Whether it has begun.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away, so there would be nothing to do either.
    """
    with transaction() as session:
        is_alone = session.scalar(_LOCK, {"name": f"consume {queue.name}"})
        if not is_alone or not _has_none(channel, queue.name):
            return False
        consume()
        return True


def _has_none(channel: Any, queue: str) -> bool:
    """Whether a queue is known to have no consumer."""
    try:
        return queue_counts.of(channel, queue, PATIENCE).consumers == 0
    except queue_counts.NotKnownError:
        return False
