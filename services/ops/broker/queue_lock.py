"""A lock per queue, by which one tool at a time reads or changes it.

It is a PostgreSQL advisory lock, which ends with its connection, and so with its process. Locks use
separate connections, so that a tool that waits for the broker does not occupy the pool.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, NullPool, and_, create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from shared.bus.consume import single_active
from shared.db import deadline, session
from shared.db.locking.advisory_locks import named
from shared.db.session import connect_args

LOCK_TIMEOUT = 5.0  # seconds
AWAY_SECONDS = 5.0
"""Timeout of a query; and how long a database that did not answer is not queried again."""
_POLL_SECONDS = 0.05
_Result = TypeVar("_Result")


class _Held(threading.local):
    """The locks of this thread, by queue: whether each was acquired."""

    def __init__(self) -> None:
        self.locks: dict[str, bool] = {}


_held = _Held()
_away_until = 0.0
_engines: dict[str, Engine] = {}
_lock_database: Callable[[], Engine | None] = session.engine


def use_database(engine: Engine | None) -> None:
    """Set the database that has the locks; the default is that of the process's settings.

    Args:
        engine: the database's engine; None if it is not known, where no lock is taken.
    """
    global _lock_database

    def configured() -> Engine | None:
        return engine

    _lock_database = configured


@contextmanager
def locked(queue: str, seconds: float = LOCK_TIMEOUT) -> Iterator[bool]:
    """Lock a queue for the duration of the context; without success after a timeout.

    The lock is reentrant within a thread. While the database is unreachable no lock is taken, since
    dead letters must be readable during an outage.

    Args:
        queue: its name.
        seconds: the timeout.

    Yields:
        Whether no other tool has the lock, as far as is known.
    """
    if queue in _held.locks:
        yield _held.locks[queue]
        return
    connection = _connect()
    if connection is None:
        yield True
        return
    with connection:
        until = time.monotonic() + seconds
        while not (alone := _take(connection, queue)):
            if time.monotonic() >= until:
                break
            time.sleep(_POLL_SECONDS)
        _held.locks[queue] = alone
        try:
            yield alone
        finally:
            del _held.locks[queue]


def lock_database() -> Engine | None:
    """Return the database that has the locks; None if it is not known."""
    return _lock_database()


def _connect() -> Connection | None:
    if time.monotonic() < _away_until:
        return None
    database = lock_database()
    if database is None:
        return None
    return _query(
        lambda: _unpooled(database).connect().execution_options(isolation_level="AUTOCOMMIT")
    )


def _take(connection: Connection, queue: str) -> bool:
    tools = func.pg_try_advisory_lock(named(f"ops turn {queue}"))
    # Keeps the consumers of an ordered queue from starting meanwhile.
    consumers = func.pg_try_advisory_lock_shared(named(single_active.lock_name(queue)))
    taken = _query(lambda: bool(connection.scalar(select(and_(tools, consumers)))))
    return taken is not False


def _query(query: Callable[[], _Result]) -> _Result | None:
    """Return the query's result; None if the database is unreachable, or did not answer in time."""
    global _away_until
    had_time = deadline.left() >= AWAY_SECONDS
    try:
        with deadline.within(AWAY_SECONDS):
            return query()
    except SQLAlchemyError as error:
        if not session.is_database_unavailable(error):
            raise
        # A caller whose own deadline expired has not learnt that the database is unreachable.
        if had_time or not isinstance(error, deadline.NoAnswerError):
            _away_until = time.monotonic() + AWAY_SECONDS
        return None


def _unpooled(database: Engine) -> Engine:
    """Return an engine of the same database that opens a connection per lock."""
    url = database.url.render_as_string(hide_password=False)
    if url not in _engines:
        made = create_engine(
            database.url,
            # A pooled connection might be dead, and be waited for without a timeout.
            poolclass=NullPool,
            connect_args=connect_args(url, name="order-fellow turns"),
        )
        _engines[url] = deadline.watch(made)
    return _engines[url]
