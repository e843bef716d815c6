"""Jobs that meet a database that is away say so once, and again each minute."""

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from shared import periodic


def away():
    raise OperationalError("SELECT 1", {}, Exception("refused"))


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(periodic, "_outage", periodic._Outage())
    monkeypatch.setattr(periodic.time, "monotonic", lambda: now[0])
    return now


def test_an_outage_is_told_once_a_minute_by_all_jobs_together(clock):
    said = []
    for _ in range(5 * 60 // 2):
        with capture_logs() as logs:
            for job in ("rehearse", "heartbeat", "prune"):
                periodic.attempt(job, away)
        said += [(entry["event"], entry["job"]) for entry in logs]
        clock[0] += 2
    assert said == [("database_away", "rehearse")] * 5


def test_what_is_no_outage_is_told_each_time(clock):
    with capture_logs() as logs:
        for _ in range(3):
            periodic.attempt("prune", lambda: 1 / 0)
    assert [entry["event"] for entry in logs] == ["job_failed"] * 3
