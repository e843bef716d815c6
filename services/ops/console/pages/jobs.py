"""Watching long work, and stopping it."""

from sqlalchemy.orm import Session

from services.ops.console.web.jobs import Job
from services.ops.console.web.page import Page, Visit
from services.ops.users.rights import Right
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Redirect, View


def show(_: Session, visit: Visit) -> Result:
    """How far it is."""
    return View("job.html", {"job": _job(visit)})


def progress(_: Session, visit: Visit) -> Result:
    """The same, as a piece of a page, which asks again until the work is done."""
    return View("job_progress.html", {"job": _job(visit)})


def stop(_: Session, visit: Visit) -> Result:
    """Have it stop; what is done stays done."""
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
            "This work is not known (any more): the console has started anew since. "
            "What it had done stays done; begin again for the rest.",
        )
    return job


PAGES = (
    Page("GET", "/jobs/{job_id}", "watch", show),
    Page("GET", "/jobs/{job_id}/progress", "watch", progress, asks_by_itself=True),
    Page("POST", "/jobs/{job_id}/stop", Right.MESSAGES, stop),
)
