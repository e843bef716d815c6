"""Metrics of alerts."""

from prometheus_client import Counter

_alerts = Counter("fellow_alerts", "Alerts: messages about troubles.", ["channel", "outcome"])


def begin(channel: str) -> None:
    """Start a channel's counters at zero, so that its first message is an increase."""
    for outcome in ("sent", "failed"):
        _alerts.labels(channel, outcome)


def tried(channel: str, *, well: bool) -> None:
    """Count one message.

    Args:
        channel: the name of the channel.
        well: whether it was sent.
    """
    _alerts.labels(channel, "sent" if well else "failed").inc()
