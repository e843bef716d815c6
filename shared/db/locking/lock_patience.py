"""Changing the tables of a running system: its locks are asked for briefly, and again.

Whoever waits for an exclusive lock stands before all who come later, readers too, so a migration
behind one long transaction would stop the system for as long as that lasts. So it asks for a few
seconds, lets the others pass, asks again, and says meanwhile who is in the way.
"""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

LOCK_SECONDS = 3.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
GIVE_UP_SECONDS = 600.0
LOOK_SECONDS = 0.5
_BLOCKED = ("55P03", "40P01")  # lock_not_available, deadlock_detected (PostgreSQL, Appendix A)


class BlockedError(Exception):
    """A lock was not to be had; the message says who has it."""


def patiently(connection: Connection, change: Callable[[], None]) -> None:
    """Make a change, as often as it takes to get its locks.

    Args:
        connection: makes the change, and is in no transaction.
        change: begins and commits transactions of its own; what it has committed it does not do
            again when it is called again.

    Raises:
        BlockedError: it was not to be had in `GIVE_UP_SECONDS`.
    """
    connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS * 1000:.0f}ms'"))
    pid = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    connection.commit()
    deadline = time.monotonic() + GIVE_UP_SECONDS
    pause = FIRST_PAUSE
    while True:
        with _Watch(connection.engine, pid) as watch:
            try:
                change()
            except DBAPIError as error:
                connection.rollback()
                if getattr(error.orig, "pgcode", None) not in _BLOCKED:
                    raise
                refused = error
            else:
                return
        if time.monotonic() + pause > deadline:
            raise BlockedError(f"{watch.found}. Nothing is half done: run it again.") from refused
        said = f"{watch.found}. It lets the others pass and tries again in {pause:g} s."
        print(said, file=sys.stderr, flush=True)  # noqa: T201
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


class _Watch:
    """Sees who is in the way of a connection, on one of its own, for as long as it lasts."""

    def __init__(self, engine: Engine, pid: int) -> None:
        self.found = "The migration waits for a lock"
        self._engine = engine
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                with self._engine.connect() as connection:
                    rows = connection.execute(_BLOCKERS, {"pid": self._pid}).all()
            except DBAPIError:
                continue
            if rows:
                who = ", ".join(
                    f"pid {row.pid} ({row.usename or 'unknown'}, "
                    f"{row.application_name or 'no application_name'}), in a transaction for "
                    + ("an unknown time" if row.seconds is None else f"{row.seconds:.0f} s")
                    for row in rows
                )
                self.found = f"The migration waits for a lock of {who}"


_BLOCKERS = text("""
    SELECT pid, usename, application_name,
           extract(epoch FROM clock_timestamp() - xact_start) AS seconds
    FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid)) ORDER BY xact_start
""")
