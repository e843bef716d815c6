"""A database that hangs is one that does not answer: its connections are cut after a while.

A server that is stopped (`docker pause`), or whose commits wait for a standby, keeps its
connections alive: neither TCP nor a timeout of its own ends a statement then.
"""

import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

_opened: weakref.WeakKeyDictionary[Engine, weakref.WeakSet[Any]] = weakref.WeakKeyDictionary()


class NoAnswerError(SQLAlchemyError):
    """The database had not answered when its time was over; the message says so."""


def watch(engine: Engine) -> Engine:
    """Know an engine's connections from the first on, so that `within` can cut them."""
    opened = _opened.setdefault(engine, weakref.WeakSet())
    # Before the dialect asks its first questions.
    event.listen(engine, "connect", lambda made, _: opened.add(made), insert=True)
    return engine


@contextmanager
def within(engine: Engine, seconds: float) -> Iterator[None]:
    """Cut the connections of an engine once so many seconds are over, and say why.

    All of them: it is for an engine that one piece of work has for itself.

    Args:
        engine: one that is watched.
        seconds: for everything inside; a new connection has its own limit beside.

    Raises:
        NoAnswerError: they are over, and what was under way failed by it.
    """
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        for connection in list(_opened.get(engine, ())):
            _cut(connection)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except SQLAlchemyError as error:
        if is_over.is_set():
            raise NoAnswerError(f"it has not answered for {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def _cut(connection: Any) -> None:
    # Its own close would wait for who is waiting in it.
    with suppress(Exception):
        if not connection.closed:
            with socket.socket(fileno=os.dup(connection.fileno())) as its_socket:
                its_socket.shutdown(socket.SHUT_RDWR)
