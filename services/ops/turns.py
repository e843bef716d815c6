"""Taking turns at a queue: one tool looks through it, or works in it, at a time.

By an advisory lock of PostgreSQL's, which ends with its connection, and so with its process.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, func, select

PATIENCE = 5.0  # seconds
_LOOK_SECONDS = 0.05


@contextmanager
def turn(engine: Engine | None, queue: str) -> Iterator[bool]:
    """Wait until nobody else is at work in a queue, for `PATIENCE` at most; go on then anyway.

    Args:
        engine: of the database where tools meet; without one nobody is waited for.
        queue: its name.

    Yields:
        Whether nobody else is at work there now, as far as is known.
    """
    if engine is None:
        yield True
        return
    digest = hashlib.sha256(f"ops turn {queue}".encode()).digest()
    key = int.from_bytes(digest[:8], signed=True)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
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
