"""What is counted of looks."""

from datetime import datetime

from prometheus_client import Gauge

_look = Gauge("fellow_look_timestamp_seconds", "When the console has last looked at the system.")


def looked(at: datetime) -> None:
    """Note a look.

    Args:
        at: when it was.
    """
    _look.set(at.timestamp())
