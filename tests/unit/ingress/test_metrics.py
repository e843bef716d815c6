"""Webhooks are counted in plain numbers first, with the results of Prometheus' own metrics."""

import time

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from services.ingress import metrics

SECONDS = [0.0, 0.001, 0.0010001, 0.03, 0.05, 0.25, 2.5, 5, 5.1, 60]
OUTCOMES = ["accepted"] * 7 + ["a_code_of_this_test"] * 3


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def counted():
    bounds = [*map(float, metrics.BUCKETS), float("inf")]
    found = {
        f"le {bound}": value("fellow_webhook_seconds_bucket", le=str(bound).replace("inf", "+Inf"))
        for bound in bounds
    }
    found |= {code: value("fellow_webhook_requests_total", code=code) for code in set(OUTCOMES)}
    return found | {
        "count": value("fellow_webhook_seconds_count"),
        "sum": value("fellow_webhook_seconds_sum"),
    }


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        (["overloaded"] * 4 + ["accepted"] * 96, ""),
        (["overloaded"] * 3 + ["internal_error"] * 2 + ["accepted"] * 95, "5 of 100 webhooks of "),
        (["internal_error"] * 9 + ["accepted"] * 991, ""),
        # That the broker and the database are away is told by others.
        (["unavailable"] * 100, ""),
    ],
)
def test_failing_webhooks_are_in_the_heartbeat(codes, said, monkeypatch):
    now = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    ours = metrics.Metrics()
    for part in (codes[::2], codes[1::2]):
        for code in part:
            ours.webhook(code, 0.001)
        now[0] += 61
        ours.flush()
    found = ours.unwell()
    assert ("webhooks" in found) is bool(said)
    assert found.get("webhooks", "").startswith(said)


def test_counts_are_added_once_when_flushed(monkeypatch):
    """A lock and two writes to shared memory for each number took a twentieth of the hot path."""
    ours = metrics.Metrics()
    before = counted()
    for code, seconds in zip(OUTCOMES, SECONDS, strict=True):
        ours.webhook(code, seconds)
    assert counted() == before
    ours.flush()
    ours.flush()
    after = counted()
    theirs = Histogram("a", "As Prometheus counts.", buckets=metrics.BUCKETS, registry=None)
    registry = CollectorRegistry()
    registry.register(theirs)
    for seconds in SECONDS:
        theirs.observe(seconds)
    expected = {
        key: registry.get_sample_value("a_bucket", {"le": key.removeprefix("le ")})
        for key in before
        if key.startswith("le ") and "inf" not in key
    }
    assert {key: after[key] - before[key] for key in expected} == expected
    assert after["count"] - before["count"] == after["le inf"] - before["le inf"] == len(SECONDS)
    assert after["sum"] - before["sum"] == pytest.approx(sum(SECONDS))
    assert after["accepted"] - before["accepted"] == 7
    assert after["a_code_of_this_test"] - before["a_code_of_this_test"] == 3
