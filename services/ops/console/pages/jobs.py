"""Pages of background jobs: progress, and stopping one."""

from sqlalchemy.orm import Session

from services.ops.console.web.jobs import Job
from services.ops.console.web.page import Page, Visit
from services.ops.users.rights import Right
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Redirect, View


def show(_: Session, visit: Visit) -> Result:
    """Show a job."""
    return View("job.html", {"job": _job(visit)})


def progress(_: Session, visit: Visit) -> Result:
    """Return the progress as a fragment that polls until the job ends."""
    return View("job_progress.html", {"job": _job(visit)})


def stop(_: Session, visit: Visit) -> Result:
    """Stop a job between two steps; finished steps stay done."""
    job = _job(visit)
    if not job.is_running:
        return Redirect(f"/jobs/{job.id}", "It had ended already.")
    job.stopping.set()
    return Redirect(f"/jobs/{job.id}")


def _job(visit: Visit) -> Job:
    job = visit.system.jobs.find(uuid_of(visit.path["job_id"]))
    if job is None:
        raise PageError(
            404,
            "This work is not known (any more): the console was restarted since. "
            "Its finished steps stay done; begin again for the rest.",
        )
    return job


PAGES = (
    Page("GET", "/jobs/{job_id}", "watch", show),
    Page("GET", "/jobs/{job_id}/progress", "watch", progress, asks_by_itself=True),
    Page("POST", "/jobs/{job_id}/stop", Right.MESSAGES, stop),
)
