"""A database that hangs is one that does not answer: who has a limit is cut off from it after that.

A server that is stopped (`docker pause`), or whose commits wait for a standby, keeps its
connections alive: neither TCP nor a timeout of its own ends a statement then.
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
"""For the database, where somebody waits for a page or an answer."""
_TICK = 0.1
_AWAKE_TICKS = 50
"""Ticks without a question until the watchdog sleeps, so that a busy process wakes it seldom."""


class NoAnswerError(SQLAlchemyError):
    """The database had not answered when its time was over; the message says so."""


class TookTooLongError(Exception):
    """The database answers, and had not done a statement when its time was over."""


class _Budget:
    """What is left of the time that a thread gives the database."""

    __slots__ = ("left", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds


class _Thread(threading.local):
    budget: _Budget | None = None


_own = _Thread()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give the database so many seconds for all that this thread asks of it inside.

    What it has not answered by then is ended, by cutting the connection; what waits for anybody
    else does not count. Inside of another limit the smaller one holds. It goes for connections of
    engines that are watched.

    Args:
        seconds: for connecting, statements and commits together. A connection takes two in any case
            (libpq, `connect_timeout`).

    Raises:
        NoAnswerError: they are over, and what was under way failed by it.
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
    """Have the server end a statement inside that takes longer, for what can be done without.

    What comes after goes on in the same transaction. The limit of `within` holds besides.

    Args:
        session: the transaction.
        seconds: for each statement.

    Raises:
        TookTooLongError: one of them took longer.
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
    """The seconds that this thread may give the database yet; infinite where it has no limit."""
    return inf if _own.budget is None else max(_own.budget.left, 0.0)


def watch(engine: Engine) -> Engine:
    """Have an engine make connections that `within` can cut."""
    event.listen(engine, "do_connect", _connect)
    return engine


class _Watchdog:
    """Cuts connections whose answer is overdue; one thread for the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._awaited: dict[int, tuple[float, Connection]] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._is_asleep = False

    def expect(self, connection: "Connection", until: float) -> int:
        """Cut a connection at a time, unless it is told before that the answer has come."""
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
        """What was expected under a number has come."""
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
# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_watchdog.__init__)  # type: ignore[misc]


class Connection(extensions.connection):
    """One whose every question has the time that its thread has left."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.cursor_factory = Cursor

    def commit(self) -> None:
        """As of the class above."""
        _ask(self, super().commit)

    def rollback(self) -> None:
        """As of the class above."""
        _ask(self, super().rollback)


class Cursor(extensions.cursor):
    """Of such a connection."""

    def execute(self, *args: Any) -> None:
        """As of the class above."""
        _ask(self.connection, super().execute, *args)

    def executemany(self, *args: Any) -> None:
        """As of the class above."""
        _ask(self.connection, super().executemany, *args)

    def copy_expert(self, *args: Any) -> None:
        """As of the class above."""
        _ask(self.connection, super().copy_expert, *args)

    def fetchmany(self, *args: Any) -> list[tuple[Any, ...]]:
        """As of the class above; a named cursor asks the server for them."""
        if self.name is None:
            return super().fetchmany(*args)
        rows: list[tuple[Any, ...]] = _ask(self.connection, super().fetchmany, *args)
        return rows


def _ask(connection: Any, ask: Callable[..., Any], *args: Any) -> Any:
    budget = _own.budget
    if budget is None:
        return ask(*args)
    if budget.left <= 0:
        # Cut before it is asked: who is refused a rollback must see a connection that is lost, and
        # not put it back into a pool, or leave it to the garbage collector, amid its transaction.
        _cut(connection)
        return ask(*args)
    started = monotonic()
    number = _watchdog.expect(connection, started + budget.left)
    try:
        return ask(*args)
    finally:
        _watchdog.answered(number)
        budget.left -= monotonic() - started


def _connect(dialect: Any, _: Any, given: Any, named: dict[str, Any]) -> Any:
    """Make a connection, as SQLAlchemy's event `do_connect` has it."""
    named = {**named, "connection_factory": Connection}
    budget = _own.budget
    if budget is None:
        return dialect.connect(*given, **named)
    if budget.left <= 0:
        raise psycopg2.OperationalError("no time is left for the database")
    started = monotonic()
    longest = named.get("connect_timeout", budget.seconds)
    named["connect_timeout"] = max(1, min(longest, ceil(budget.left)))
    try:
        return dialect.connect(*given, **named)
    finally:
        budget.left -= monotonic() - started


def _cut(connection: "Connection") -> None:
    # Its own close would wait for who is waiting in it.
    with suppress(Exception):
        if not connection.closed:
            with socket.socket(fileno=os.dup(connection.fileno())) as its_socket:
                its_socket.shutdown(socket.SHUT_RDWR)
