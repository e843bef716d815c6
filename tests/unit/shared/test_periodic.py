"""Logging of failing jobs, and their report in the heartbeat."""

from collections import deque

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from shared import periodic
from shared.bus import metrics as bus
from shared.telemetry import heartbeat, metrics


def away():
    raise OperationalError("SELECT 1", {}, Exception("refused"))


@pytest.fixture
def clock(monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(periodic, "_outage_log", periodic._OutageLog())
    monkeypatch.setattr(periodic.time, "monotonic", lambda: now[0])
    return now


def test_all_jobs_together_log_an_outage_once_a_minute(clock):
    logged = []
    for _ in range(5 * 60 // 2):
        with capture_logs() as logs:
            for job in ("rehearse", "heartbeat", "prune"):
                periodic.attempt(job, away)
        logged += [(entry["event"], entry["job"]) for entry in logs]
        clock[0] += 2
    assert logged == [("database_away", "rehearse")] * 5


def test_other_failures_are_logged_each_time(clock):
    with capture_logs() as logs:
        for _ in range(3):
            periodic.attempt("prune", lambda: 1 / 0)
    assert [entry["event"] for entry in logs] == ["job_failed"] * 3


def test_a_late_job_is_reported_in_the_heartbeat(clock, monkeypatch):
    monkeypatch.setattr(metrics, "_jobs", {})
    monkeypatch.setattr(bus, "_lately", deque())  # left by earlier tests
    metrics.job_begins("schedule", 60.0)
    metrics.job_begins("prune", 3_600.0)
    for _ in range(14):
        assert heartbeat._problems() == {}
        periodic.attempt("schedule", lambda: 1 / 0)
        clock[0] += 60
    assert heartbeat._problems() == {
        "job schedule": "the job schedule has not gone well for 14 min: ZeroDivisionError"
    }
    periodic.attempt("schedule", list)
    assert heartbeat._problems() == {}


def test_journal_misses_are_reported_in_the_heartbeat_for_an_hour(clock, monkeypatch):
    monkeypatch.setattr(bus, "_lately", deque())
    bus.miss(5)
    clock[0] += 1_800
    bus.miss(7)
    assert heartbeat._problems()["journal"] == (
        "the journal is not known to have 12 messages of the last hour"
    )
    clock[0] += 3_599
    assert "have 7 messages" in heartbeat._problems()["journal"]
    clock[0] += 1
    assert "journal" not in heartbeat._problems()


def test_many_recent_failures_are_reported(clock):
    failures = metrics.Failures(0.02)
    failures.add(1_000, 20)
    assert failures.excess() is None
    clock[0] += 200
    failures.add(10, 1)
    assert failures.excess() == (21, 1_010)
    clock[0] += 101
    assert failures.excess() is None
    failures.add(10, 4)
    assert failures.excess() == (5, 20)


def test_brief_failures_are_not_reported_and_bursts_are_one_episode(clock):
    failures = metrics.Failures(0.02)
    failures.add(9, 9)
    clock[0] += 30
    assert failures.excess() is None
    clock[0] += 40
    failures.add(9, 9)
    assert failures.excess() == (18, 18)
    # Bursts are one episode.
    clock[0] += 180
    assert failures.excess() == (18, 18)
    failures.add(9, 9)
    clock[0] += 180
    assert failures.excess() == (9, 9)
    clock[0] += 121
    assert failures.excess() is None
    failures.add(9, 9)
    assert failures.excess() is None
