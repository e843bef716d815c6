"""An account's share of the fast lane, and how it comes back to it."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.orders import lanes
from services.orders.lanes import Lanes
from shared.ids import new_id

A, B = new_id(), new_id()


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def made(burst=10, rate=5):
    clock = Clock()
    return Lanes(burst, rate, clock), clock


def test_within_its_burst_an_account_stays_in_the_fast_lane():
    share, _ = made(burst=10)
    assert share.beyond_their_share([A] * 10) == frozenset()


def test_beyond_its_burst_only_that_account_goes_into_the_bulk_lane():
    share, _ = made(burst=10)
    assert share.beyond_their_share([A, B] + [A] * 10) == {A}


def test_an_account_at_its_rate_stays_in_the_fast_lane():
    share, clock = made(burst=10, rate=5)
    for _ in range(1_000):
        assert not share.beyond_their_share([A])
        clock.now += 0.2


def test_an_account_stays_in_the_bulk_lane_until_its_bucket_is_empty():
    share, clock = made(burst=10, rate=5)
    assert share.beyond_their_share([A] * 50) == {A}
    clock.now += 9.9
    assert share.beyond_their_share([A]) == {A}
    clock.now += 10.4
    assert share.beyond_their_share([A]) == frozenset()


def test_the_number_of_remembered_accounts_is_bounded(monkeypatch):
    monkeypatch.setattr(lanes, "MAX_ACCOUNTS", 2)
    share, _ = made(burst=2)
    assert share.beyond_their_share([A] * 3) == {A}
    share.beyond_their_share([new_id(), new_id()])
    assert len(share._buckets) == 2
    assert not share.beyond_their_share([A])


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30)), max_size=40))
def test_never_more_than_the_burst_and_the_rate_in_the_fast_lane(batches):
    share, clock = made(burst=10, rate=5)
    passed: list[tuple[float, int]] = []
    for wait, count in batches:
        clock.now += wait
        if not share.beyond_their_share([UUID(int=1)] * count):
            passed.append((clock.now, count))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span = passed[last][0] - passed[first][0]
            assert sum(n for _, n in passed[first : last + 1]) <= 10 + 5 * span + 1e-6
