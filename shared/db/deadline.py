"""Deadlines for database calls of a thread, enforced by shutting the connection's socket down.

A paused server (`docker pause`), or one whose commits wait for a standby, keeps its connections
alive: neither TCP nor a server-side timeout ends a statement then.
"""

import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil, inf
from time import monotonic
from typing import Any

import psycopg2
from psycopg2 import errors, extensions
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

ANSWER_SECONDS = 5.0
"""Default deadline while a user waits for a page or a response."""
_TICK = 0.1
_AWAKE_TICKS = 50
"""Idle ticks until the watchdog sleeps, so that a busy process rarely has to wake it."""


class NoAnswerError(SQLAlchemyError):
    """The database did not answer before the deadline."""


class TookTooLongError(Exception):
    """The database ended a statement at its time limit."""


class _Budget:
    """The remaining time for a thread's database calls, in seconds."""

    __slots__ = ("left", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds


class _Thread(threading.local):
    budget: _Budget | None = None


_own = _Thread()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Limit the total time of this thread's database calls in the block.

    A call that exceeds it fails, because its connection is cut. Time spent outside of database
    calls does not count. The smaller of nested limits applies. Only connections of engines passed
    to `watch` are limited.

    Args:
        seconds: for connecting, statements and commits together. Connecting may take two seconds
            in any case (libpq, `connect_timeout`).

    Raises:
        NoAnswerError: the time was used up and the call in progress failed.
    """
    outer = _own.budget
    budget = _own.budget = _Budget(seconds if outer is None else min(seconds, outer.left))
    try:
        yield
    except (SQLAlchemyError, psycopg2.Error) as error:
        if budget.left <= 0:
            raise NoAnswerError(f"it has not answered for {budget.seconds:g} s") from error
        raise
    finally:
        _own.budget = outer
        if outer is not None:
            outer.left -= budget.seconds - budget.left


@contextmanager
def at_most(session: Session, seconds: float) -> Iterator[None]:
    """Limit each statement in the block by `statement_timeout`, for optional queries.

    The block is a savepoint, so the transaction remains usable. `within` applies as well.

    Args:
        session: the transaction.
        seconds: for each statement.

    Raises:
        TookTooLongError: a statement took longer.
    """
    try:
        with session.begin_nested():
            before = session.scalar(select(func.current_setting("statement_timeout")))
            _set_statement_timeout(session, str(round(seconds * 1000)))
            yield
            _set_statement_timeout(session, before or "0")
    except OperationalError as error:
        if isinstance(error.orig, errors.QueryCanceled):
            raise TookTooLongError(f"it has not done it in {seconds:g} s") from error
        raise


def _set_statement_timeout(session: Session, value: str) -> None:
    session.execute(select(func.set_config("statement_timeout", value, True)))


def left() -> float:
    """Return the remaining seconds for this thread's database calls; infinite without a limit."""
    return inf if _own.budget is None else max(_own.budget.left, 0.0)


def watch(engine: Engine) -> Engine:
    """Make an engine create connections that `within` can cut; return the engine."""
    event.listen(engine, "do_connect", _connect)
    return engine


class _Watchdog:
    """Cuts connections whose response is overdue; one thread per process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._awaited: dict[int, tuple[float, Connection]] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._is_asleep = False

    def expect(self, connection: "Connection", until: float) -> int:
        """Cut a connection at `until` (monotonic) unless `answered` is called with the result."""
        with self._changed:
            number = next(self._numbers)
            self._awaited[number] = until, connection
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="database", daemon=True)
                self._thread.start()
            elif self._is_asleep:
                self._changed.notify()
        return number

    def answered(self, number: int) -> None:
        """Cancel the deadline with the number that `expect` returned."""
        with self._changed:
            self._awaited.pop(number, None)

    def _run(self) -> None:
        idle = 0
        with self._changed:
            while True:
                now = monotonic()
                idle = 0 if self._awaited else idle + 1
                for number, (until, connection) in list(self._awaited.items()):
                    if until <= now:
                        del self._awaited[number]
                        _cut(connection)
                self._is_asleep = idle > _AWAKE_TICKS
                self._changed.wait(None if self._is_asleep else _TICK)


_watchdog = _Watchdog()
# Threads do not survive a fork.
os.register_at_fork(after_in_child=_watchdog.__init__)  # type: ignore[misc]


class Connection(extensions.connection):
    """A connection whose calls are limited by the remaining time of the calling thread."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.cursor_factory = Cursor

    def commit(self) -> None:
        """Commit, within the remaining time."""
        _call(self, super().commit)

    def rollback(self) -> None:
        """Roll back, within the remaining time."""
        _call(self, super().rollback)


class Cursor(extensions.cursor):
    """A cursor of a limited connection."""

    def execute(self, *args: Any) -> None:
        """Execute, within the remaining time."""
        _call(self.connection, super().execute, *args)

    def executemany(self, *args: Any) -> None:
        """Execute, within the remaining time."""
        _call(self.connection, super().executemany, *args)

    def copy_expert(self, *args: Any) -> None:
        """Copy, within the remaining time."""
        _call(self.connection, super().copy_expert, *args)

    def fetchmany(self, *args: Any) -> list[tuple[Any, ...]]:
        """Fetch; limited for a named cursor, which requests rows from the server."""
        if self.name is None:
            return super().fetchmany(*args)
        rows: list[tuple[Any, ...]] = _call(self.connection, super().fetchmany, *args)
        return rows


def _call(connection: Any, method: Callable[..., Any], *args: Any) -> Any:
    budget = _own.budget
    if budget is None:
        return method(*args)
    if budget.left <= 0:
        # Cut first: after a failed rollback the connection must count as lost. Otherwise it would
        # return to the pool, or to the garbage collector, in the middle of its transaction.
        _cut(connection)
        return method(*args)
    started = monotonic()
    number = _watchdog.expect(connection, started + budget.left)
    try:
        return method(*args)
    finally:
        _watchdog.answered(number)
        budget.left -= monotonic() - started


def _connect(dialect: Any, _: Any, args: Any, named: dict[str, Any]) -> Any:
    """Connect within the remaining time; a handler of SQLAlchemy's event `do_connect`."""
    named = {**named, "connection_factory": Connection}
    budget = _own.budget
    if budget is None:
        return dialect.connect(*args, **named)
    if budget.left <= 0:
        raise psycopg2.OperationalError("no time is left for the database")
    started = monotonic()
    longest = named.get("connect_timeout", budget.seconds)
    # The timeout applies to each host (libpq, `connect_timeout`), and one may not answer.
    hosts = str(named.get("host") or "").count(",") + 1
    named["connect_timeout"] = max(1, min(longest, ceil(budget.left) // hosts))
    try:
        return dialect.connect(*args, **named)
    finally:
        budget.left -= monotonic() - started


def _cut(connection: "Connection") -> None:
    # connection.close() would wait for the thread that is blocked in it.
    with suppress(Exception):
        if not connection.closed:
            with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_RDWR)
