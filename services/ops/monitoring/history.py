"""The last hour by the minute, from the snapshots that the poller keeps. Pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from services.ops.monitoring.snapshot import Snapshot
from shared.bus.contract import topology

MINUTES = 60
_MINUTE = timedelta(minutes=1)

Line = list[float | None]


@dataclass(frozen=True, slots=True)
class Flow:
    """Orders and their updates in each minute.

    Attributes:
        at: the end of each minute, in Unix time.
        accepted: orders and updates that were accepted.
        recorded: orders and updates that were recorded.
        emailed: emails to customers.
    """

    at: list[int]
    accepted: Line
    recorded: Line
    emailed: Line


def flow(snapshots: Sequence[Snapshot], now: datetime) -> Flow:
    """Return the flow of orders in the last hour.

    Args:
        snapshots: oldest first.
        now: the end of the last minute.
    """
    ends = [now - _MINUTE * back for back in range(MINUTES, -1, -1)]
    return Flow(
        [int(end.timestamp()) for end in ends[1:]],
        _differences(snapshots, ends, accepted),
        _differences(snapshots, ends, recorded),
        _differences(snapshots, ends, emailed),
    )


def depths(snapshots: Sequence[Snapshot], now: datetime, queue: str) -> Line:
    """Return the most messages that a queue held in each minute.

    Args:
        snapshots: oldest first.
        now: the end of the last minute.
        queue: its name.
    """
    line: Line = [None] * MINUTES
    for snapshot in snapshots:
        back = int((now - snapshot.at) / _MINUTE)
        messages = snapshot.sample.messages(queue)
        if 0 <= back < MINUTES and messages is not None:
            place = MINUTES - 1 - back
            line[place] = max(line[place] or 0, messages)
    return line


def recorded(snapshot: Snapshot) -> int | None:
    """Return how many orders and updates were ever recorded."""
    return snapshot.stats.counters.recorded if snapshot.stats else None


def emailed(snapshot: Snapshot) -> int | None:
    """Return how many emails were ever sent."""
    return snapshot.stats.counters.emailed if snapshot.stats else None


def accepted(snapshot: Snapshot) -> int | None:
    """Return how many orders and updates were ever accepted: the recorded and the waiting ones."""
    known, waiting = recorded(snapshot), snapshot.sample.messages(topology.ORDERS_INTAKE.name)
    return None if known is None or waiting is None else known + waiting


def per_minute(
    snapshots: Sequence[Snapshot], now: datetime, count: Callable[[Snapshot], int | None]
) -> float | None:
    """Return the growth of a count over the last minute; None if the newest snapshot lacks it."""
    recent = [
        snapshot
        for snapshot in snapshots
        if now - snapshot.at <= _MINUTE and count(snapshot) is not None
    ]
    if len(recent) < 2 or recent[-1] is not snapshots[-1]:
        return None
    first, last = recent[0], recent[-1]
    grown = (count(last) or 0) - (count(first) or 0)
    return max(0.0, grown / ((last.at - first.at) / _MINUTE))


def _differences(
    snapshots: Sequence[Snapshot], ends: Sequence[datetime], count: Callable[[Snapshot], int | None]
) -> Line:
    """Return the growth in each minute; None if an end of it has no snapshot, or a counter fell.

    Else the growth of an outage would all be in the minute in which it ended.
    """
    at_end: list[int | None] = []
    place, newest, seen_at = 0, None, ends[0]
    for end in ends:
        while place < len(snapshots) and snapshots[place].at <= end:
            found = count(snapshots[place])
            if found is not None:
                newest, seen_at = found, snapshots[place].at
            place += 1
        at_end.append(newest if end - seen_at <= _MINUTE else None)
    return [
        None if before is None or after is None or after < before else after - before
        for before, after in pairwise(at_end)
    ]
