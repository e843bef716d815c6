"""Samples for the tests of the figures and of the diagnosis."""

from datetime import UTC, datetime, timedelta

from services.ops.monitoring.heartbeats import EXPECTED, Beat, QueueBeat
from services.ops.monitoring.queue_stats import Sample
from shared.bus.broker.queue_counts import Count
from shared.bus.contract import topology

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


def sample(seconds, *, beats=(), missing=(), **ready):
    """One with every queue there, empty and consumed; `orders_intake=(5, 0)`: ready, consumers."""
    counts = {
        queue.name: Count(0, 1 if queue in topology.WORK_QUEUES else 0)
        for queue in topology.QUEUES
        if queue.name not in missing
    }
    for name, (messages, consumers) in ready.items():
        counts[name.replace("_", ".", 2)] = Count(messages, consumers)
    return Sample(at=at(seconds), counts=counts, beats=beats, outbox=0)


def everybody(seconds, **queues):
    """A heartbeat of every service; those of `queues` in the first one that is asked."""
    beats = {name: {} for name in EXPECTED}
    beats["services.orders"] = {name.replace("_", "."): beat for name, beat in queues.items()}
    return [
        Beat(service, f"{service}:1", "1.0", NOON, at(seconds), figures)
        for service, figures in beats.items()
    ]


def handling(handled, *, rate=0.0, unacked=0, reached=None):
    return QueueBeat(handled, rate, unacked, None if reached is None else at(reached))
