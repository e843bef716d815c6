"""What the log says of a part that does not work: at once, then each minute, and never more."""

import pytest
from structlog.testing import capture_logs

from shared.bus.broker import standing
from shared.bus.broker.standing import Standing

REFUSED = OSError("Queue.declare: (403) ACCESS_REFUSED - access to queue 'orders.intake' refused")
AWAY = ConnectionRefusedError(111, "Connection refused")


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(standing, "time", made)
    return made


def told_over(clock, error, seconds):
    one = Standing("tests")
    with capture_logs() as logged:
        for _ in range(seconds):
            one.failed(error)
            clock.now += 1
    return [entry["log_level"] for entry in logged]


def test_a_refusal_is_an_error_again_each_minute(clock):
    assert told_over(clock, REFUSED, 150) == ["error", "error", "error"]


def test_a_broker_that_is_away_is_a_warning_and_an_error_when_it_stays_away(clock):
    assert told_over(clock, AWAY, 150) == ["warning", "error", "error"]


def test_a_connection_that_comes_and_goes_does_not_fill_the_log(clock):
    one = Standing("tests")
    with capture_logs() as logged:
        for _ in range(50):
            one.failed(REFUSED)
            one.working()
            clock.now += 1
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == [
        "refused_by_broker"
    ]


def test_what_waits_on_the_database_does_not_hide_a_lost_connection(clock):
    one = Standing("tests")
    one.failed(REFUSED)
    one.holding("the database is away")
    assert one.status.state == "refused"
    one.released()
    assert one.status.state == "refused"


def test_work_that_goes_wrong_is_an_error_again_each_minute_until_it_goes_well(clock):
    one = Standing("tests")
    one.working()
    with capture_logs() as logged:
        for _ in range(90):
            one.failing(LookupError("no table"))
            clock.now += 1
        assert (one.status.state, one.status.reason, one.status.is_well) == (
            "failing",
            "no table",
            False,
        )
        one.released()
    assert [entry["event"] for entry in logged] == ["failing", "failing", "working_again"]
    assert {entry["log_level"] for entry in logged[:2]} == {"error"}
    assert one.status.is_well


def test_work_that_goes_wrong_does_not_hide_a_lost_connection(clock):
    one = Standing("tests")
    one.failed(REFUSED)
    one.failing(LookupError("no table"))
    assert one.status.state == "refused"
    one.released()
    assert one.status.state == "refused"
