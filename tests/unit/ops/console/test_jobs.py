"""Background jobs: reasons of failures, and keeping the running ones."""

import threading

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.ops.console.web.jobs import KEPT, Job, Jobs
from shared.bus.broker.confirmed import NotPublishedError
from shared.web.results import PageError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PageError(503, "The broker does not confirm it: it is gone."), "confirm it: it is gone."),
        (NotPublishedError("there is no queue orders.intake"), "no queue orders.intake."),
        (OperationalError("", {}, Exception("gone")), "the database stopped answering."),
        (PoolTimeoutError("used up"), "no connection to the database left."),
        (KeyError("x"), "something broke on our side, KeyError."),
    ],
)
def test_the_reason_of_a_failure_is_a_sentence(error, said):
    def work(job):
        job.done = 1_200
        raise error

    job = Jobs().start(Job("Replay", "ada", "/"), work)
    assert job.ended.wait(30)
    assert job.failed
    assert job.outcome.startswith("It stopped after 1,200: ")
    assert said in job.outcome
    assert job.outcome.endswith("Begin again: what is done is not done twice.")


def test_a_running_job_is_kept_whatever_follows():
    jobs, end = Jobs(), threading.Event()
    running = jobs.start(Job("Long", "ada", "/"), lambda _: str(end.wait(60)))
    others = []
    for number in range(KEPT + 10):
        others.append(jobs.start(Job(f"Short {number}", "ada", "/"), lambda _: "done"))
        others[-1].ended.wait(30)
    assert jobs.find(running.id) is running
    assert jobs.running() == [running]
    assert jobs.find(others[0].id) is None
    assert jobs.find(others[-1].id) is others[-1]
    end.set()
