"""Long work in threads: each can be watched and stopped, and ends with the process.

A job must be one that can be killed at any moment and begun again: nothing here outlives a restart.
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
from shared.db.session import is_database_away, is_used_up, transaction
from shared.ids import new_id
from shared.web.results import PageError, Redirect

KEPT = 50
QUICK_SECONDS = 1.5
"""Work that is done within so long is told of at once, without a page of its own."""

log = structlog.get_logger()


class JobStopped(Exception):  # noqa: N818
    """Somebody has asked for it, or a sentence says why; what was done stays done."""


@dataclass
class Job:
    """One piece of work, and how far it is.

    Attributes:
        id: its id.
        title: what is done, in words.
        started_by: the name of a user.
        back: the page to go back to.
        total: how much there is to do; None when nobody knows.
        done: how much is done.
        outcome: what came of it, in words; empty while it runs.
        failed: whether it ended before its end.
        stopping: set when it shall stop; its work looks at it between two steps.
        ended: set when it has ended.
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
        """Whether it is still at it."""
        return not self.ended.is_set()


class Jobs:
    """The jobs of this process that run, and the newest of those that have ended: `KEPT` in all."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[UUID, Job] = OrderedDict()

    def start(self, job: Job, work: Callable[[Job], str]) -> Job:
        """Begin.

        Args:
            job: what it is.
            work: counts in `job.done`, ends soon after `job.stopping` is set, and returns what came
                of it, in words.
        """
        self._jobs[job.id] = job
        for known in list(self._jobs.values()):
            if len(self._jobs) > KEPT and not known.is_running:
                del self._jobs[known.id]
        threading.Thread(target=self._run, args=(job, work), name=job.title, daemon=True).start()
        return job

    def begin(self, job: Job, work: Callable[[Job], str]) -> Redirect:
        """As `start`; back when it is done soon, else to where it can be watched."""
        self.start(job, work)
        if job.ended.wait(QUICK_SECONDS) and not job.failed:
            return Redirect(job.back, job.outcome)
        return Redirect(f"/jobs/{job.id}")

    def find(self, id_: UUID) -> Job | None:
        """A job, if it runs or is one of the newest of this process."""
        return self._jobs.get(id_)

    def running(self) -> list[Job]:
        """Those at work."""
        return [job for job in self._jobs.values() if job.is_running]

    def stop(self) -> None:
        """Have all of them stop."""
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
    """To be called between two steps of a job, which goes on under its beginner's name.

    Args:
        job: which.
        user: who has begun it.
        needed: the rights that it takes.

    Raises:
        JobStopped: somebody has asked for that; or whoever has begun it was removed, or may not do
            it any more.
    """
    if job.stopping.is_set():
        raise JobStopped
    with transaction() as session:
        now = users.find(session, user.name)
    if now is None or now.id != user.id or lacking(now, needed):
        raise JobStopped(f"{user.name} may not go on with it any more.")


def _reason(error: Exception) -> str:
    """Why something broke off, in a sentence as far as there is one."""
    if isinstance(error, PageError):
        return error.sentence
    if isinstance(error, NotPublishedError):
        return f"{error}."
    if is_used_up(error):
        return "this console had no connection to the database left."
    if is_database_away(error):
        return "the database did not answer any more."
    return f"something broke on our side, {type(error).__name__}. It was logged."
