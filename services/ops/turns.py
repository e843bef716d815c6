"""Taking turns at a queue: one tool looks through it, or works in it, at a time.

By an advisory lock of PostgreSQL's, which ends with its connection, and so with its process.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

PATIENCE = 5.0  # seconds
_LOOK_SECONDS = 0.05


@contextmanager
def turn(engine: Engine | None, queue: str) -> Iterator[bool]:
    """Wait until nobody else is at work in a queue, for `PATIENCE` at most; go on then anyway.

    Args:
        engine: of the database where tools meet; without one, and while it is away, nobody is
            waited for: dead letters are wanted just then.
        queue: its name.

    Yields:
        Whether nobody else is at work there now, as far as is known.
    """
    connection = _connect(engine)
    if connection is None:
        yield True
        return
    digest = hashlib.sha256(f"ops turn {queue}".encode()).digest()
    key = int.from_bytes(digest[:8], signed=True)
    with connection:
        deadline = time.monotonic() + PATIENCE
        while not (alone := bool(connection.scalar(select(func.pg_try_advisory_lock(key))))):
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_SECONDS)
        try:
            yield alone
        finally:
            if alone:
                connection.execute(select(func.pg_advisory_unlock(key)))


def _connect(engine: Engine | None) -> Connection | None:
    if engine is None:
        return None
    try:
        return engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except DBAPIError:
        return None
