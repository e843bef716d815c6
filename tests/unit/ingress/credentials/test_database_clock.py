"""The bounds of the database's time hold for slow answers and a wrong wall clock."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.credentials.database_clock import DRIFT, DatabaseClock

seconds = st.floats(0, 1000, allow_nan=False)
trips = st.tuples(seconds, st.floats(0, 20), st.floats(0, 20))
START = 1_800_000_000.0
ROUNDING = 1e-4


@given(st.lists(trips, min_size=1, max_size=20), st.floats(-DRIFT, DRIFT), seconds)
def test_the_true_time_is_within_the_bounds(readings, drift, later):
    """The database's clock drifts, and each round trip takes time."""
    clock, monotonic = DatabaseClock(), 0.0

    def true(at):
        return START + at * (1 + drift)

    for pause, there, back in readings:
        before = monotonic + pause
        monotonic = before + there + back
        clock.read(true(before + there), before, monotonic)
        earliest, latest = clock.bounds(monotonic)
        assert earliest - ROUNDING <= true(monotonic) <= latest + ROUNDING
    earliest, latest = clock.bounds(monotonic + later)
    assert earliest - ROUNDING <= true(monotonic + later) <= latest + ROUNDING


@given(st.floats(0.001, 20), st.floats(1, 100))
def test_a_slow_answer_does_not_widen_the_bounds(slow, pause):
    clock = DatabaseClock()
    clock.read(START, 0.0, 0.001)
    clock.read(START + pause + slow / 2, pause, pause + slow)
    earliest, latest = clock.bounds(pause + slow)
    assert latest - earliest <= 0.001 + 2 * DRIFT * (pause + slow) + 1e-6


@pytest.mark.parametrize("jump", [-600, 600])
def test_a_database_clock_that_is_set_is_followed(jump):
    clock = DatabaseClock()
    clock.read(START, 0.0, 0.001)
    clock.read(START + 1 + jump, 1.0, 1.001)
    assert clock.bounds(1.001)[0] == pytest.approx(START + 1 + jump, abs=0.01)


@pytest.mark.parametrize("jump", [-600, 600])
def test_the_workers_wall_clock_does_not_matter(monkeypatch, jump):
    clock = DatabaseClock()
    now = time.monotonic()
    clock.read(START, now, now)
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + jump)
    assert clock.now() == pytest.approx(START, abs=60)


def test_before_the_first_reading_the_time_is_the_workers():
    assert DatabaseClock().now() == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("jump", [-600, -1, 0, 1, 600])
def test_a_stamp_is_the_databases_time(monkeypatch, jump):
    clock, true = DatabaseClock(), time.time
    monkeypatch.setattr(time, "time", lambda: true() + jump)
    before = time.monotonic()
    clock.read(true(), before, time.monotonic())
    earliest, _ = clock.bounds(time.monotonic())
    stamp = clock.stamp()
    _, latest = clock.bounds(time.monotonic())
    assert earliest - ROUNDING <= stamp <= latest + ROUNDING
    # However long no other reading comes: whom the database left alone has one time still.
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    assert clock.stamp() == pytest.approx(true() + 3600, abs=1)


def test_workers_of_one_host_whose_clock_is_right_agree(monkeypatch):
    """Also with slow readings: two updates of one millisecond keep their order."""
    one, other = DatabaseClock(), DatabaseClock()
    now, true = time.monotonic(), time.time()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "time", lambda: true)
    one.read(true - 0.001, now - 0.002, now)
    other.read(true - 0.2, now - 0.3, now)
    assert one.stamp() == other.stamp() == pytest.approx(true, abs=1e-6)
