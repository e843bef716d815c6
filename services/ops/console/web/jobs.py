"""Background jobs in threads, with progress; they can be stopped, and end with the process.

A job must be safe to kill at any moment and to start again: none survives a restart.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import structlog

from services.ops.users import users
from services.ops.users.queue_rights import lacking
from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus.broker.confirmed import NotPublishedError
from shared.db.session import is_database_unavailable, is_pool_exhausted, transaction
from shared.ids import new_id
from shared.web.results import PageError, Redirect

KEPT = 50
QUICK_SECONDS = 1.5
"""A job that ends within this time needs no progress page."""

log = structlog.get_logger()


class JobStopped(Exception):  # noqa: N818
    """A user stopped the job, or the text says why it stopped; finished steps stay done."""


@dataclass
class Job:
    """A job and its progress.

    Attributes:
        id: its id.
        title: its name for users.
        started_by: the name of a user.
        back: the page to return to.
        total: the number of steps; None if unknown.
        done: the finished steps.
        outcome: its result as a sentence; empty while it runs.
        failed: whether it ended early.
        stopping: set to stop it; the work checks it between two steps.
        ended: set at its end.
    """

    title: str
    started_by: str
    back: str
    id: UUID = field(default_factory=new_id)
    total: int | None = None
    done: int = 0
    outcome: str = ""
    failed: bool = False
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    stopping: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.is_set()


class Jobs:
    """The running jobs of this process, and the newest ended ones: `KEPT` in all."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[UUID, Job] = OrderedDict()

    def start(self, job: Job, work: Callable[[Job], str]) -> Job:
        """Start a job in a thread.

        Args:
            job: the job.
            work: counts in `job.done`, ends soon after `job.stopping` is set, and returns the
                outcome as a sentence.
        """
        self._jobs[job.id] = job
        for known in list(self._jobs.values()):
            if len(self._jobs) > KEPT and not known.is_running:
                del self._jobs[known.id]
        threading.Thread(target=self._run, args=(job, work), name=job.title, daemon=True).start()
        return job

    def begin(self, job: Job, work: Callable[[Job], str]) -> Redirect:
        """Start a job; redirect back if it ends soon, else to its progress page."""
        self.start(job, work)
        if job.ended.wait(QUICK_SECONDS) and not job.failed:
            return Redirect(job.back, job.outcome)
        return Redirect(f"/jobs/{job.id}")

    def find(self, id_: UUID) -> Job | None:
        """Return a running or recent job of this process; else None."""
        return self._jobs.get(id_)

    def running(self) -> list[Job]:
        """Return the running jobs."""
        return [job for job in self._jobs.values() if job.is_running]

    def stop(self) -> None:
        """Stop all jobs."""
        for job in self.running():
            job.stopping.set()

    def _run(self, job: Job, work: Callable[[Job], str]) -> None:
        try:
            job.outcome = work(job)
        except JobStopped as stopped:
            job.failed = True
            why = str(stopped) or "Begin again for the rest."
            job.outcome = f"Stopped after {job.done:,}. {why}"
        except Exception as error:
            log.exception("job_failed", job=str(job.id))
            job.failed = True
            job.outcome = (
                f"It stopped after {job.done:,}: {_reason(error)} "
                "Begin again: what is done is not done twice."
            )
        finally:
            job.ended.set()


def go_on(job: Job, user: User, needed: Collection[Right]) -> None:
    """Check between two steps of a job that it may go on in its user's name.

    Args:
        job: the job.
        user: the user who started it.
        needed: the rights that it needs.

    Raises:
        JobStopped: a user stopped it; or the user who started it was removed, or lost a right.
    """
    if job.stopping.is_set():
        raise JobStopped
    with transaction() as session:
        now = users.find(session, user.name)
    if now is None or now.id != user.id or lacking(now, needed):
        raise JobStopped(f"{user.name} may not go on with it any more.")


def _reason(error: Exception) -> str:
    """Return the reason of a failure as a sentence."""
    if isinstance(error, PageError):
        return error.sentence
    if isinstance(error, NotPublishedError):
        return f"{error}."
    if is_pool_exhausted(error):
        return "this console had no connection to the database left."
    if is_database_unavailable(error):
        return "the database stopped answering."
    return f"something broke on our side, {type(error).__name__}. It was logged."
