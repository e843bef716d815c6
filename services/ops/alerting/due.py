"""Which alerts are due on a channel, and their text. Pure.

An alert is sent when a trouble has lasted, when it ends, and as a reminder while no operator has
acknowledged it. Alerts of a channel are at least a minute apart, so that troubles that begin
together share one message.
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
"""A trouble that has doubled, and grown by at least this, is alerted of again, even if muted."""
SUBJECT_LENGTH = 120
_ADDRESS = re.compile(r"[^\s<>@]+@[^\s<>@]+")


@dataclass(frozen=True, slots=True)
class Due:
    """One message.

    Attributes:
        began: new troubles.
        grown: troubles that at least doubled since they were sent, acknowledged or muted.
        reminded: troubles that last and are not acknowledged.
        ended: troubles that were sent and have ended.
    """

    began: Sequence[Episode]
    grown: Sequence[Episode]
    reminded: Sequence[Episode]
    ended: Sequence[Episode]

    @property
    def subject(self) -> str:
        """The message in one line."""
        first = [*self.began, *self.grown, *self.reminded] or self.ended
        counts = {
            "new": self.began,
            "grown": self.grown,
            "still there": self.reminded,
            "over": self.ended,
        }
        summary = ", ".join(f"{len(found)} {words}" for words, found in counts.items() if found)
        text = _masked(first[0].text)
        line = f"Order Fellow: {summary}: {text}"
        return line if len(line) <= SUBJECT_LENGTH else f"{line[: SUBJECT_LENGTH - 1]}…"

    def text(self, now: datetime) -> str:
        """Return the full text."""
        return "\n".join(self._lines(now))

    def records(self, now: datetime) -> Iterator[tuple[Episode, dict[str, Any]]]:
        """Yield what `Episode.told` records of each trouble once the message is sent."""
        ongoing = [*self.began, *self.grown, *self.reminded]
        for what, found in (("began", ongoing), ("ended", self.ended)):
            for episode in found:
                yield episode, {"what": what, "at": now.isoformat(), "figure": episode.figure}

    def _lines(self, now: datetime) -> Iterator[str]:
        if self.began:
            yield "New:"
            yield from (f"- {_since(episode)}: {_masked(episode.text)}" for episode in self.began)
        if self.grown:
            yield "At least twice as much as when it was told, acknowledged or muted:"
            yield from (f"- {_since(episode)}: {_masked(episode.text)}" for episode in self.grown)
        if self.reminded:
            yield "Still there, and nobody has acknowledged it:"
            for episode in self.reminded:
                lasted = duration((now - episode.began_at).total_seconds())
                yield f"- {_since(episode)} ({lasted}): {_masked(episode.text)}"
        if self.ended:
            yield "Over:"
            for episode in self.ended:
                lasted = duration(((episode.ended_at or now) - episode.began_at).total_seconds())
                yield f"- after {lasted}: {_masked(episode.text)}"


def due(
    episodes: Iterable[Episode],
    channel: str,
    now: datetime,
    after: timedelta,
    remind: timedelta,
    *,
    database_now: datetime | None = None,
) -> Due | None:
    """Return the message that is due; None if there is nothing to send, or it is too soon.

    Args:
        episodes: the open ones, and those that ended recently.
        channel: the name of the channel.
        now: the time, by the clock of the snapshots.
        after: for how long a trouble must last before it is sent.
        remind: the time between reminders.
        database_now: the time by the clock that stamps sent messages; by default `now`. A stamp in
            its future is from a wrong clock and is ignored.
    """
    stamp_now = database_now or now
    known = sorted(
        episodes, key=lambda episode: (episode.level != "down", episode.began_at, episode.key)
    )
    times = [_at(sent) for episode in known if (sent := episode.told.get(channel))]
    if any(timedelta() <= stamp_now - at < SPACING for at in times):
        return None
    began, grown, reminded, ended = [], [], [], []
    for episode in known:
        sent = episode.told.get(channel)
        if episode.ended_at is not None:
            if sent and sent["what"] == "began" and not episode.is_muted(episode.ended_at):
                ended.append(episode)
        elif _has_grown(episode, sent):
            grown.append(episode)
        elif episode.is_muted(now):
            continue
        elif (
            sent is None or sent["what"] == "ended"
        ):  # it was sent without the database, and went on
            if now - episode.began_at >= after:
                began.append(episode)
        elif not episode.acknowledged_by and not timedelta() <= stamp_now - _at(sent) < remind:
            reminded.append(episode)
    found = Due(began, grown, reminded, ended)
    return found if began or grown or reminded or ended else None


def _has_grown(episode: Episode, sent: Mapping[str, Any] | None) -> bool:
    """Whether it is far larger than last sent on this channel, acknowledged or muted."""
    known = [
        figure
        for figure in ((sent or {}).get("figure"), episode.accepted_figure)
        if figure is not None
    ]
    most = max(known, default=None)
    return most is not None and episode.figure >= max(2 * most, most + LEAST_GROWTH)


def _at(sent: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(sent["at"])


def _since(episode: Episode) -> str:
    return f"{episode.level}{since(episode.began_at)}"


def _masked(text: str) -> str:
    """Return the text in one line without email addresses: an alert may go to any inbox."""
    return _ADDRESS.sub("•••", " ".join(text.split()))
