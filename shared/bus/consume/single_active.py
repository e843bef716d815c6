"""One active consumer at a time, for queues whose messages must take effect in order.

As RabbitMQ's `x-single-active-consumer`, which is an argument of the queue, and an existing queue
cannot be given one. A process starts to consume when the queue has no consumer; until then it asks
the broker again and again. When a connection ends, the queue drops its consumer and requeues that
one's messages in order and in one step, so the next consumer misses none. An advisory lock in the
database keeps two processes from checking and starting at the same time.

The previous consumer may not know yet that its turn is over, or be in a transaction. So each
transaction holds that lock, shared, and checks that the turn is still its own: the next consumer
waits for the transaction to end, and later transactions of the previous one do nothing (a fencing
token: Kleppmann, "How to do distributed locking").
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.broker import queue_counts
from shared.bus.consume import inbox
from shared.bus.contract import topology
from shared.db.session import transaction
from shared.ids import new_id

TIMEOUT = 1.0  # seconds, for the broker's answer about the queue
LOOK_SECONDS = 5.0
"""How long a process may hold the lock while its broker does not answer."""
_LOCK = text("""
    SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0)),
           set_config('idle_in_transaction_session_timeout', :most, true)
""")
_LOOKED = text("SET LOCAL idle_in_transaction_session_timeout TO DEFAULT")
_SHARE = text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:name, 0))")


def at_once(act: Callable[[], None]) -> bool:
    """Call `act` in this thread: for callers without a connection to keep alive."""
    act()
    return True


def begin(
    channel: Any,
    queue: topology.Queue,
    consume: Callable[[], None],
    meanwhile: Callable[[Callable[[], None]], bool] = at_once,
) -> UUID | None:
    """Start to consume a queue that has no consumer.

    Args:
        channel: an open channel of kombu.
        queue: the queue.
        consume: starts consuming; returns once the broker has confirmed it.
        meanwhile: runs a commit and returns whether it was done before a stop. A commit that has
            written waits for the synchronous standby, without a timeout.

    Returns:
        The turn, for `is_turn`; None if the queue has a consumer or another process starts.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unreachable.
    """
    if not _has_none(channel, queue.name):
        return None
    turn = new_id()
    with ExitStack() as begun:
        session = begun.enter_context(transaction())
        if not _is_free(session, channel, queue.name):
            return None
        inbox.note(session, _turn_of(queue.name), turn)
        # This ends the turn of a process whose consumer is gone already.
        if not meanwhile(begun.pop_all().close):
            return None
    # Nothing is written here, so that with a message in hand no commit waits for a standby.
    with transaction() as session:
        if not _is_free(session, channel, queue.name):
            return None
        if inbox.noted(session, _turn_of(queue.name)) != turn:
            return None
        consume()
        return turn


def is_turn(session: Session, queue: str, turn: UUID) -> bool:
    """Whether a turn lasts, and will until the transaction ends.

    Args:
        session: the transaction; holds the lock, shared, from now on.
        queue: the name of the queue.
        turn: from `begin`.
    """
    session.execute(_SHARE, {"name": lock_name(queue)})
    return inbox.noted(session, _turn_of(queue)) == turn


def lock_name(queue: str) -> str:
    """Return the name of a queue's lock, whose holders, also shared, keep others from starting."""
    return f"consume {queue}"


def _turn_of(queue: str) -> str:
    # The inbox lets a service write only under its own name or a prefix of that.
    return f"services.{queue.partition('.')[0]}/turn of {queue}"


def _is_free(session: Session, channel: Any, queue: str) -> bool:
    """Take the lock until the transaction ends; return whether the queue has no consumer."""
    values = {"name": lock_name(queue), "most": f"{LOOK_SECONDS:g}s"}
    if not session.scalar(_LOCK, values) or not _has_none(channel, queue):
        return False
    # The lock is kept while consuming starts, or another process would take later messages.
    session.execute(_LOOKED)
    return True


def _has_none(channel: Any, queue: str) -> bool:
    """Whether a queue is known to have no consumer."""
    try:
        return queue_counts.of(channel, queue, TIMEOUT).consumers == 0
    except queue_counts.NotKnownError:
        return False
