"""Taking turns at a queue: one tool looks through it, or works in it, at a time.

By an advisory lock of PostgreSQL's, which ends with its connection, and so with its process. On
connections of its own: who waits for the broker keeps nobody from the database.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, NullPool, create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from shared.db import deadline, session
from shared.db.session import connect_args

PATIENCE = 5.0  # seconds
AWAY_SECONDS = 5.0
"""How long a question may take; and how long a database that did not answer is not asked again."""
_LOOK_SECONDS = 0.05
_Answer = TypeVar("_Answer")


class _Mine(threading.local):
    """The turns that this thread has: whether nobody else is at work there, by queue."""

    def __init__(self) -> None:
        self.turns: dict[str, bool] = {}


_mine = _Mine()
_away_until = 0.0
_own: dict[str, Engine] = {}
_meeting_place: Callable[[], Engine | None] = session.engine


def meet_in(engine: Engine | None) -> None:
    """Say in which database this process meets other tools; until then it is that of its settings.

    Args:
        engine: of the database; None when it is not known: then nobody is waited for.
    """
    global _meeting_place

    def place() -> Engine | None:
        return engine

    _meeting_place = place


@contextmanager
def turn(queue: str, patience: float = PATIENCE) -> Iterator[bool]:
    """Wait until nobody else is at work in a queue; go on after a while anyway.

    A thread that has the turn has it in what it calls. While the database where tools meet is away
    nobody is waited for: dead letters are wanted just then.

    Args:
        queue: its name.
        patience: for how long, in seconds.

    Yields:
        Whether nobody else is at work there now, as far as is known.
    """
    if queue in _mine.turns:
        yield _mine.turns[queue]
        return
    connection = _connect()
    if connection is None:
        yield True
        return
    key = lock_key(f"ops turn {queue}")
    with connection:
        until = time.monotonic() + patience
        while not (alone := _take(connection, key)):
            if time.monotonic() >= until:
                break
            time.sleep(_LOOK_SECONDS)
        _mine.turns[queue] = alone
        try:
            yield alone
        finally:
            del _mine.turns[queue]


def lock_key(name: str) -> int:
    """By what an advisory lock of PostgreSQL's is asked for.

    Args:
        name: what is held.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def meeting_place() -> Engine | None:
    """The database where tools meet; None where it is not known."""
    return _meeting_place()


def _connect() -> Connection | None:
    if time.monotonic() < _away_until:
        return None
    place = meeting_place()
    if place is None:
        return None
    return _answered(
        lambda: _own_engine(place).connect().execution_options(isolation_level="AUTOCOMMIT")
    )


def _take(connection: Connection, key: int) -> bool:
    taken = _answered(lambda: bool(connection.scalar(select(func.pg_try_advisory_lock(key)))))
    return taken is not False


def _answered(ask: Callable[[], _Answer]) -> _Answer | None:
    """What the database says; None when it is away, or has not answered in time."""
    global _away_until
    had_time = deadline.left() >= AWAY_SECONDS
    try:
        with deadline.within(AWAY_SECONDS):
            return ask()
    except SQLAlchemyError as error:
        if not session.is_database_away(error):
            raise
        # Whose own time ran out has learnt nothing of the database that others should go by.
        if had_time or not isinstance(error, deadline.NoAnswerError):
            _away_until = time.monotonic() + AWAY_SECONDS
        return None


def _own_engine(place: Engine) -> Engine:
    """The same database over other connections, as many as there are turns at a time."""
    url = place.url.render_as_string(hide_password=False)
    if url not in _own:
        made = create_engine(
            place.url,
            # Each is new: one that was kept may wait for an answer without end.
            poolclass=NullPool,
            connect_args=connect_args(url, name="order-fellow turns"),
        )
        _own[url] = deadline.watch(made)
    return _own[url]
