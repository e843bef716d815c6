"""The last hour, minute by minute, out of what the lookout remembers. Pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from services.ops.monitoring.snapshot import Look
from shared.bus.contract import topology

MINUTES = 60
_MINUTE = timedelta(minutes=1)

Line = list[float | None]


@dataclass(frozen=True, slots=True)
class Flow:
    """Orders and their updates, a minute.

    Attributes:
        at: the end of each minute, in Unix time.
        accepted: what came.
        recorded: what was written down.
        emailed: what customers were told.
    """

    at: list[int]
    accepted: Line
    recorded: Line
    emailed: Line


def flow(looks: Sequence[Look], now: datetime) -> Flow:
    """How orders flowed.

    Args:
        looks: oldest first.
        now: the end of the last minute.
    """
    ends = [now - _MINUTE * back for back in range(MINUTES, -1, -1)]
    return Flow(
        [int(end.timestamp()) for end in ends[1:]],
        _differences(looks, ends, accepted),
        _differences(looks, ends, recorded),
        _differences(looks, ends, emailed),
    )


def depths(looks: Sequence[Look], now: datetime, queue: str) -> Line:
    """The most messages that a queue held in each minute.

    Args:
        looks: oldest first.
        now: the end of the last minute.
        queue: its name.
    """
    line: Line = [None] * MINUTES
    for look in looks:
        back = int((now - look.at) / _MINUTE)
        held = look.sample.messages(queue)
        if 0 <= back < MINUTES and held is not None:
            place = MINUTES - 1 - back
            line[place] = max(line[place] or 0, held)
    return line


def recorded(look: Look) -> int | None:
    """All that was ever recorded."""
    return look.books.counters.recorded if look.books else None


def emailed(look: Look) -> int | None:
    """All emails ever."""
    return look.books.counters.emailed if look.books else None


def accepted(look: Look) -> int | None:
    """All that ever came: what is recorded, and what waits for that."""
    known, waiting = recorded(look), look.sample.messages(topology.ORDERS_INTAKE.name)
    return None if known is None or waiting is None else known + waiting


def per_minute(
    looks: Sequence[Look], now: datetime, count: Callable[[Look], int | None]
) -> float | None:
    """How much more there is of something than a minute ago; None when that is not known now."""
    recent = [look for look in looks if now - look.at <= _MINUTE and count(look) is not None]
    if len(recent) < 2 or recent[-1] is not looks[-1]:
        return None
    first, last = recent[0], recent[-1]
    grown = (count(last) or 0) - (count(first) or 0)
    return max(0.0, grown / ((last.at - first.at) / _MINUTE))


def _differences(
    looks: Sequence[Look], ends: Sequence[datetime], count: Callable[[Look], int | None]
) -> Line:
    """By minute; None where one of its ends was not seen within a minute, or a counter fell.

    What came while nobody could see would all stand in the minute in which somebody could again.
    """
    at_end: list[int | None] = []
    place, newest, seen_at = 0, None, ends[0]
    for end in ends:
        while place < len(looks) and looks[place].at <= end:
            found = count(looks[place])
            if found is not None:
                newest, seen_at = found, looks[place].at
            place += 1
        at_end.append(newest if end - seen_at <= _MINUTE else None)
    return [
        None if before is None or after is None or after < before else after - before
        for before, after in pairwise(at_end)
    ]
