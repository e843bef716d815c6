"""Schema changes of a running system: a short lock timeout, with retries.

A waiting request for an exclusive lock blocks all later requests, including readers, so a migration
behind one long transaction would stop the system for that long. So it waits a few seconds, lets the
others pass, retries, and reports the blocking sessions meanwhile.
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
POLL_SECONDS = 0.5
_BLOCKED = ("55P03", "40P01")  # lock_not_available, deadlock_detected (PostgreSQL, Appendix A)


class BlockedError(Exception):
    """A lock could not be acquired; the message names the blocking sessions."""


def with_lock_retries(connection: Connection, change: Callable[[], None]) -> None:
    """Run a schema change, and repeat it until it gets its locks.

    Args:
        connection: runs the change; not in a transaction.
        change: begins and commits its own transactions, and skips committed steps when it is called
            again.

    Raises:
        BlockedError: a lock was not available for `GIVE_UP_SECONDS`.
    """
    connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS * 1000:.0f}ms'"))
    pid = int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
    connection.commit()
    deadline = time.monotonic() + GIVE_UP_SECONDS
    pause = FIRST_PAUSE
    while True:
        with _BlockerWatch(connection.engine, pid) as watch:
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
        notice = f"{watch.found}. It lets the others pass and tries again in {pause:g} s."
        print(notice, file=sys.stderr, flush=True)  # noqa: T201
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


class _BlockerWatch:
    """Polls which sessions block a connection, from a thread with a separate connection."""

    def __init__(self, engine: Engine, pid: int) -> None:
        self.found = "The migration waits for a lock"
        self._engine = engine
        self._pid = pid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "_BlockerWatch":
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
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
