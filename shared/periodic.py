"""Jobs that a process does again and again, each run counted and no failure its end."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from shared.db.session import is_database_away, transaction
from shared.telemetry import metrics

AGAIN_SECONDS = 60.0
"""How often it is said again that the database is away, by all jobs of a process together."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that runs again and again, each time in a transaction of its own.

    Attributes:
        name: for the log and the metrics.
        seconds: from the end of one run to the start of the next.
        run: must be safe beside another replica's run of the same job.
        wait: how it waits for the next one, for so many seconds at most, where something may call
            for it sooner; given what is set at a stop.
    """

    name: str
    seconds: float
    run: Callable[[Session], object]
    wait: Callable[[threading.Event, float], object] = threading.Event.wait

    def once(self) -> None:
        """Run it in a transaction."""
        with transaction() as session:
            self.run(session)


def attempt(name: str, act: Callable[[], object]) -> None:
    """Run a job once; a failure is counted and logged, and is nobody else's.

    Args:
        name: for the log and the metrics.
        act: the job, blocking.
    """
    try:
        act()
    except Exception as error:
        metrics.job_ran(name, well=False)
        if is_database_away(error):
            _outage.met(name, error)
        else:
            log.exception("job_failed", job=name)
    else:
        metrics.job_ran(name, well=True)


class _Outage:
    """Says that the database is away, however many jobs meet that, and how often."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said = float("-inf")

    def met(self, job: str, error: Exception) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._said < AGAIN_SECONDS:
                return
            self._said = now
        log.warning("database_away", job=job, error=type(error).__name__)


_outage = _Outage()


def pause(seconds: float) -> float:
    """How long to wait for the next run: spread, so that replicas that started together do not tick
    together."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311


async def keep_running(name: str, seconds: float, act: Callable[[], object]) -> None:
    """Run a job until cancelled, for a process that runs on a loop.

    Args:
        name: for the log and the metrics.
        seconds: from the end of one run to the start of the next.
        act: the job, blocking; called in a thread.
    """
    metrics.job_begins(name, seconds)
    while True:
        await asyncio.to_thread(attempt, name, act)
        await asyncio.sleep(pause(seconds))
