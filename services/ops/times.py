"""Formats times for sentences, with date and zone, since they are read later and elsewhere."""

from datetime import UTC, datetime


def moment(time: datetime) -> str:
    """Format a time, to the minute: `2026-11-29 14:03 UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def since(time: datetime | None) -> str:
    """Format a time as ` since ...`, to follow a verb; empty if it is unknown."""
    return f" since {moment(time)}" if time else ""


def duration(seconds: float) -> str:
    """Format a duration for sentences, which need one unit: `45 s`, `4 min`, `3 h`, `2 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
