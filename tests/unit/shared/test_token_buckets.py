"""Token buckets, with a fake clock."""

from hypothesis import given
from hypothesis import strategies as st

from shared import token_buckets
from shared.token_buckets import TokenBuckets


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def test_a_burst_then_the_rate():
    clock = Clock()
    buckets = TokenBuckets(2, 4, clock)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 1]
    clock.now += 1
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 1]


def test_keys_are_independent():
    buckets = TokenBuckets(1, 1, Clock())
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0


def test_the_wait_suffices_and_is_empty_takes_no_token():
    clock = Clock()
    buckets = TokenBuckets(0.1, 1, clock)
    assert buckets.is_empty("a") == 0
    buckets.take("a")
    wait = buckets.take("a")
    assert wait == buckets.is_empty("a") == 10
    clock.now += wait
    assert buckets.is_empty("a") == 0
    assert buckets.take("a") == 0


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(token_buckets, "MAX_KEYS", 10)
    buckets = TokenBuckets(1, 1, Clock())
    for key in range(100):
        buckets.take(key)
    assert len(buckets._buckets) == 10


@given(
    st.floats(0.1, 50),
    st.integers(1, 50),
    st.lists(st.floats(0, 3), max_size=100),
)
def test_never_more_than_the_burst_and_the_rate(rate, burst, pauses):
    clock = Clock()
    buckets = TokenBuckets(rate, burst, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += buckets.take("a") == 0
    assert taken <= burst + rate * sum(pauses) + 0.001
