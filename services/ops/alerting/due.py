"""What is to be told of troubles on a channel, and in which words. Pure.

One message when one has lasted, one when it ends, a reminder now and then while nobody looks after
it; and a minute at least between two messages, so that what begins together is told together.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.ops.monitoring.episodes import Episode
from services.ops.times import duration, since

SPACING = timedelta(minutes=1)
LEAST_GROWTH = 10
"""One that has doubled, and grown by so much at least, is told anew, whoever has muted it."""
SUBJECT_LENGTH = 120
_ADDRESS = re.compile(r"[^\s<>@]+@[^\s<>@]+")


@dataclass(frozen=True, slots=True)
class Due:
    """One message.

    Attributes:
        began: troubles that are told of for the first time.
        grown: those that have doubled at least since they were told or taken for known.
        reminded: those that are still there, and whose nobody is.
        ended: those that were told of and are over.
    """

    began: Sequence[Episode]
    grown: Sequence[Episode]
    reminded: Sequence[Episode]
    ended: Sequence[Episode]

    @property
    def subject(self) -> str:
        """In a line."""
        first = [*self.began, *self.grown, *self.reminded] or self.ended
        counts = {
            "new": self.began,
            "grown": self.grown,
            "still there": self.reminded,
            "over": self.ended,
        }
        said = ", ".join(f"{len(found)} {words}" for words, found in counts.items() if found)
        text = _masked(first[0].text)
        line = f"Order Fellow: {said}: {text}"
        return line if len(line) <= SUBJECT_LENGTH else f"{line[: SUBJECT_LENGTH - 1]}…"

    def text(self, now: datetime) -> str:
        """In full."""
        return "\n".join(self._lines(now))

    def told(self, now: datetime) -> Iterator[tuple[Episode, dict[str, Any]]]:
        """What is to be noted of each trouble in it, for the channel."""
        told = [*self.began, *self.grown, *self.reminded]
        for what, found in (("began", told), ("ended", self.ended)):
            for one in found:
                yield one, {"what": what, "at": now.isoformat(), "figure": one.figure}

    def _lines(self, now: datetime) -> Iterator[str]:
        if self.began:
            yield "New:"
            yield from (f"- {_since(one)}: {_masked(one.text)}" for one in self.began)
        if self.grown:
            yield "At least twice as much as when it was told, acknowledged or muted:"
            yield from (f"- {_since(one)}: {_masked(one.text)}" for one in self.grown)
        if self.reminded:
            yield "Still there, and nobody has acknowledged it:"
            for one in self.reminded:
                lasted = duration((now - one.began_at).total_seconds())
                yield f"- {_since(one)} ({lasted}): {_masked(one.text)}"
        if self.ended:
            yield "Over:"
            for one in self.ended:
                lasted = duration(((one.ended_at or now) - one.began_at).total_seconds())
                yield f"- after {lasted}: {_masked(one.text)}"


def due(
    episodes: Iterable[Episode],
    channel: str,
    now: datetime,
    after: timedelta,
    remind: timedelta,
    *,
    by_stamps: datetime | None = None,
) -> Due | None:
    """What is to be told now; None when there is nothing, or it is too soon.

    Args:
        episodes: those that are open, and those that have ended lately.
        channel: the name of the channel.
        now: the time, by the clock that looks at troubles.
        after: for how long a trouble must last before anybody is told.
        remind: after how long a reminder comes.
        by_stamps: the time by the clock that stamps what was told; the same when not given. What
            was told later than that was stamped by a clock that was wrong: it says nothing.
    """
    told_now = by_stamps or now
    known = sorted(episodes, key=lambda one: (one.level != "down", one.began_at, one.key))
    times = [_at(said) for one in known if (said := one.told.get(channel))]
    if any(timedelta() <= told_now - at < SPACING for at in times):
        return None
    began, grown, reminded, ended = [], [], [], []
    for one in known:
        said = one.told.get(channel)
        if one.ended_at is not None:
            if said and said["what"] == "began" and not one.is_muted(one.ended_at):
                ended.append(one)
        elif _has_grown(one, said):
            grown.append(one)
        elif one.is_muted(now):
            continue
        elif said is None or said["what"] == "ended":  # told from memory, and it went on
            if now - one.began_at >= after:
                began.append(one)
        elif not one.acknowledged_by and not timedelta() <= told_now - _at(said) < remind:
            reminded.append(one)
    found = Due(began, grown, reminded, ended)
    return found if began or grown or reminded or ended else None


def _has_grown(one: Episode, said: Mapping[str, Any] | None) -> bool:
    """Whether it is far more than what people of this channel know, or have taken for known."""
    known = [
        figure for figure in ((said or {}).get("figure"), one.accepted_figure) if figure is not None
    ]
    most = max(known, default=None)
    return most is not None and one.figure >= max(2 * most, most + LEAST_GROWTH)


def _at(said: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(said["at"])


def _since(one: Episode) -> str:
    return f"{one.level}{since(one.began_at)}"


def _masked(text: str) -> str:
    """In one line, and without anybody's address: who gets it is for others to say."""
    return _ADDRESS.sub("•••", " ".join(text.split()))
