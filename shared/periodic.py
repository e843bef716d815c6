"""Jobs that a process does again and again, each run counted and no failure its end."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from shared.db.session import is_database_away, transaction
from shared.telemetry import metrics

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that runs again and again, each time in a transaction of its own.

    Attributes:
        name: for the log and the metrics.
        seconds: from the end of one run to the start of the next.
        run: must be safe beside another replica's run of the same job.
    """

    name: str
    seconds: float
    run: Callable[[Session], object]

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
            log.warning("database_away", job=name, error=type(error).__name__)
        else:
            log.exception("job_failed", job=name)
    else:
        metrics.job_ran(name, well=True)


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
