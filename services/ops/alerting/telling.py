"""The job that tells: of several consoles one at a time, and without the database from memory.

What was told of a trouble stands in its row, by channel, in the transaction that holds the lock; a
crash between the sending and the commit tells it twice. While the database is away, which is what
people must hear of most, each console tells by itself what it sees, and writes that down once the
database is back: so the end is told, too.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.ops.alerting import metrics
from services.ops.alerting.channels import Channel, NotToldError
from services.ops.alerting.due import due
from services.ops.monitoring import episodes
from services.ops.monitoring.episodes import Episode
from services.ops.monitoring.poller import Lookout
from services.ops.monitoring.snapshot import Look
from shared.config.settings import Settings
from shared.db.session import is_database_away, transaction
from shared.ids import new_id

SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0  # seconds until a channel is tried again that failed
LATELY = timedelta(days=1)
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('services.ops.alerting', 0))")

log = structlog.get_logger()


class Teller:
    """Tells what is due. Not for several threads at once.

    Args:
        config: `alert_after_seconds` and `alert_remind_seconds` count.
        channels: where.
    """

    def __init__(self, config: Settings, channels: Sequence[Channel]) -> None:
        self._after = timedelta(seconds=config.alert_after_seconds)
        self._remind = timedelta(seconds=config.alert_remind_seconds)
        self._channels = channels
        for channel in channels:
            metrics.begin(channel.name)
        self._pauses: dict[str, tuple[float, float]] = {}  # until when, and how long
        self._open: dict[str, Episode] = {}
        self._is_from_memory = False

    def tell(self, look: Look) -> None:
        """Tell what is due after a look."""
        if look.sample.database_error is None:
            try:
                self._by_the_books()
            except Exception as error:
                if not is_database_away(error):
                    raise
            return
        self._see(look)
        now = datetime.now(UTC)
        for channel in self._channels:
            for one, said in self._told_on(channel, list(self._open.values()), now):
                self._open[one.key] = replace(one, told={**one.told, channel.name: said})

    def _by_the_books(self) -> None:
        if self._is_from_memory:
            with transaction() as session:
                for one in self._open.values():
                    _restore(session, one)
            self._is_from_memory = False
        for channel in self._channels:
            with transaction() as session:
                if not session.scalar(_LOCK):
                    return
                now = datetime.now(UTC)
                for one, said in self._told_on(
                    channel, episodes.untold(session, now - LATELY), now
                ):
                    episodes.note_told(session, one, channel.name, said)
        with transaction() as session:
            still = episodes.untold(session, datetime.now(UTC))
        self._open = {one.key: one for one in still if one.ended_at is None}

    def _see(self, look: Look) -> None:
        """Go on in memory: what is new, and the newest words of what is known."""
        self._is_from_memory = True
        for trouble in look.troubles:
            known = self._open.get(trouble.key)
            if known is None:
                known = Episode(
                    new_id(), trouble.key, trouble.level, trouble.about, trouble.text, look.at
                )
            self._open[trouble.key] = replace(known, text=trouble.text, level=trouble.level)

    def _told_on(
        self, channel: Channel, known: Sequence[Episode], now: datetime
    ) -> list[tuple[Episode, dict[str, Any]]]:
        """What was told on a channel; nothing where nothing was due or got through."""
        until, pause = self._pauses.get(channel.name, (0.0, 0.0))
        found = due(known, channel.name, now, self._after, self._remind)
        if found is None or time.monotonic() < until:
            return []
        try:
            channel.send(found.subject, found.text(now))
        except NotToldError as error:
            pause = min(pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
            self._pauses[channel.name] = (time.monotonic() + pause, pause)
            metrics.tried(channel.name, well=False)
            log.warning("alert_not_sent", channel=channel.name, error=str(error), seconds=pause)
            return []
        self._pauses.pop(channel.name, None)
        metrics.tried(channel.name, well=True)
        counts = {"new": len(found.began), "reminded": len(found.reminded)}
        log.info("alert_sent", channel=channel.name, **counts, over=len(found.ended))
        return list(found.told(now))


async def keep_telling(config: Settings, channels: Sequence[Channel], lookout: Lookout) -> None:
    """Tell what is due after each look, until cancelled.

    Args:
        config: see `Teller`.
        channels: where; nothing is done where there are none.
        lookout: who looks.
    """
    teller = Teller(config, channels)
    while channels:
        await asyncio.sleep(SECONDS)
        if lookout.latest is None:
            continue
        try:
            await asyncio.to_thread(teller.tell, lookout.latest)
        except Exception:
            log.exception("not_told")


def _restore(session: Session, one: Episode) -> None:
    """Write down what was told while the database was away."""
    episodes.begin(session, one, datetime.now(UTC))
    for channel, said in one.told.items():
        episodes.note_told(session, one, channel, said)
