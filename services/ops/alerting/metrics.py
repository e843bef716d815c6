"""What is counted of alerts."""

from prometheus_client import Counter

_alerts = Counter("fellow_alerts", "Messages about troubles.", ["channel", "outcome"])


def begin(channel: str) -> None:
    """Count a channel from nought, so that its first message is seen to be one more."""
    for outcome in ("sent", "failed"):
        _alerts.labels(channel, outcome)


def tried(channel: str, *, well: bool) -> None:
    """Count one message.

    Args:
        channel: the name of the channel.
        well: whether it got through.
    """
    _alerts.labels(channel, "sent" if well else "failed").inc()
