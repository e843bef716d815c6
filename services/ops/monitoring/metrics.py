"""Metrics of the snapshot poller."""

from datetime import datetime

from prometheus_client import Gauge

_newest = Gauge(
    "fellow_look_timestamp_seconds", "When the console last took a snapshot of the system."
)


def snapshot_taken(at: datetime) -> None:
    """Record the time of the newest snapshot."""
    _newest.set(at.timestamp())
