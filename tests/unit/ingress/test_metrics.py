"""What is counted of webhooks: in plain numbers first, and as Prometheus would have it then."""

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


def test_counts_are_added_when_they_are_flushed_and_once(monkeypatch):
    """A lock and two writes into shared memory a number were a twentieth of the hot path."""
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
