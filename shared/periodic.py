"""Runs periodic jobs; counts each run, and continues after failures."""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from shared.db.session import is_database_unavailable, transaction
from shared.telemetry import metrics

AGAIN_SECONDS = 60.0
"""Interval at which all jobs of a process together log that the database is unreachable."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Periodic:
    """A periodic job, each run in a separate transaction.

    Attributes:
        name: for the log and the metrics.
        seconds: from the end of one run to the start of the next.
        run: must be safe beside another replica's run of the same job.
        wait: waits for the next run for at most the given seconds, and may return earlier; its
            first argument is set at a stop.
    """

    name: str
    seconds: float
    run: Callable[[Session], object]
    wait: Callable[[threading.Event, float], object] = threading.Event.wait

    def once(self) -> None:
        """Run the job once in a transaction."""
        with transaction() as session:
            self.run(session)


def attempt(name: str, act: Callable[[], object]) -> None:
    """Run a job once; count and log a failure instead of raising it.

    Args:
        name: for the log and the metrics.
        act: the job, blocking.
    """
    try:
        act()
    except Exception as error:
        # Only the class: the message may contain personal data, and heartbeats are widely visible.
        metrics.job_ran(name, type(error).__name__)
        if is_database_unavailable(error):
            _outage_log.report(name, error)
        else:
            log.exception("job_failed", job=name)
    else:
        metrics.job_ran(name)


class _OutageLog:
    """Logs that the database is unreachable, at most once per `AGAIN_SECONDS` for all jobs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged_at = float("-inf")

    def report(self, job: str, error: Exception) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._logged_at < AGAIN_SECONDS:
                return
            self._logged_at = now
        log.warning("database_away", job=job, error=type(error).__name__)


_outage_log = _OutageLog()


def pause(seconds: float) -> float:
    """Return `seconds` with a jitter of 10%, so that replicas started together drift apart."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311


async def keep_running(name: str, seconds: float, act: Callable[[], object]) -> None:
    """Run a job on the event loop until cancelled.

    Args:
        name: for the log and the metrics.
        seconds: from the end of one run to the start of the next.
        act: the job, blocking; called in a thread.
    """
    metrics.job_begins(name, seconds)
    while True:
        await asyncio.to_thread(attempt, name, act)
        await asyncio.sleep(pause(seconds))
