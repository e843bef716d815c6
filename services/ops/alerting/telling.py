"""The job that tells: of several consoles one at a time, and without the database from memory.

What was told of a trouble stands in its row, by channel, written in the transaction that holds the
channel's lock. What was sent and could not be written down, since the database went or takes no
writes, is remembered until it can be: only a crash between the two tells it twice. While the
database is away, which is what people must hear of most, each console tells by itself what it sees,
and writes that down once the database is back: so the end is told, too.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.ops.alerting import metrics
from services.ops.alerting.channels import Channel
from services.ops.alerting.due import due
from services.ops.alerting.sending import Sending
from services.ops.monitoring import episodes
from services.ops.monitoring.alerts import too_old
from services.ops.monitoring.episodes import Episode
from services.ops.monitoring.poller import Lookout
from services.ops.monitoring.snapshot import Look
from services.ops.monitoring.visibility import is_hidden, is_over
from shared.config.settings import Settings
from shared.db.deadline import within
from shared.db.session import database_time, is_database_away, make_engine

SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0  # seconds until a channel is tried again that failed
ENOUGH = 20.0
"""Seconds for one message in all, well below `IDLE_SECONDS`: a transaction waits meanwhile."""
PATIENCE = 10.0
"""Seconds for the database."""
LATELY = timedelta(days=1)
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")

log = structlog.get_logger()


class Teller:
    """Tells on one channel what is due. Not for several threads at once.

    Args:
        config: `alert_after_seconds` and `alert_remind_seconds` count.
        channel: where.
    """

    def __init__(self, config: Settings, channel: Channel) -> None:
        self._after = timedelta(seconds=config.alert_after_seconds)
        self._remind = timedelta(seconds=config.alert_remind_seconds)
        # Of its own: what pages wait for holds up no alert.
        self._engine = make_engine(config, pool_size=1)
        self._channel, self._name = channel, channel.name
        metrics.begin(channel.name)
        self._until, self._pause = 0.0, 0.0
        self._sending: Sending | None = None
        self._open: dict[str, Episode] = {}
        self._seen: dict[str, datetime] = {}
        self._over: dict[UUID, Episode] = {}
        self._unnoted: dict[UUID, tuple[Episode, dict[str, Any]]] = {}
        self._is_from_memory = False

    def tell(self, look: Look) -> None:
        """Tell what is due after a look."""
        self._wait(0.0)
        is_blind = too_old(look.at, datetime.now(UTC)) is not None
        if look.sample.database_error is None and not is_blind:
            try:
                with within(PATIENCE):
                    self._by_the_books()
            except Exception as error:
                if self._unnoted:
                    self._hold_back()
                if not is_database_away(error):
                    raise
            return
        self._see(look)
        self._remember()
        self._send([*self._open.values(), *self._over.values()], datetime.now(UTC))
        for id_ in self._remember():
            del self._unnoted[id_]

    def _by_the_books(self) -> None:
        if self._is_from_memory:
            self._restore()
        if self._unnoted:
            # First and by itself: where it cannot be noted, nor could what is sent now.
            with self._transaction() as session:
                self._note(session)
            self._unnoted.clear()
        with self._transaction() as session:
            if not session.scalar(_LOCK, {"name": f"services.ops.alerting {self._name}"}):
                return
            now = datetime.now(UTC)
            known = episodes.untold(session, now - LATELY)
            self._open = {one.key: one for one in known if one.ended_at is None}
            self._send(known, now, database_time(session))
            self._note(session)
        self._remember()
        self._unnoted.clear()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _note(self, session: Session) -> None:
        for one, said in self._unnoted.values():
            episodes.note_told(session, one, self._name, said)

    def _remember(self) -> list[UUID]:
        """Put what was sent to what is known of troubles; give the ids of those."""
        known: Sequence[dict[Any, Episode]] = (self._open, self._over)
        found = []
        for those in known:
            for key, one in those.items():
                if one.id in self._unnoted:
                    _, said = self._unnoted[one.id]
                    those[key] = replace(one, told={**one.told, self._name: said})
                    found.append(one.id)
        return found

    def _restore(self) -> None:
        """Write down what was told while the database was away."""
        with self._transaction() as session:
            # What has ended first: the same may have begun again.
            for one in (*self._over.values(), *self._open.values()):
                episodes.begin(session, one, one.ended_at or datetime.now(UTC))
                if said := one.told.get(self._name):
                    episodes.note_told(session, one, self._name, said)
                if one.ended_at is not None:
                    episodes.end(session, one)
        self._over.clear()
        self._seen.clear()
        self._is_from_memory = False

    def _see(self, look: Look) -> None:
        """Go on in memory: what is new, the newest words of what is known, what is over."""
        self._is_from_memory = True
        for trouble in look.troubles:
            self._seen[trouble.key] = look.at
            known = self._open.get(trouble.key) or look.episodes.get(trouble.key)
            if known is None or known.id in self._over:
                known = Episode.beginning(trouble, look.at)
            if is_hidden(look.sample, trouble.about, trouble.kind):  # it is what is seen of it
                figure, accepted, told = known.figure, known.accepted_figure, known.told
                figure = max(figure, trouble.figure)
            else:
                figure = trouble.figure
                accepted, told = episodes.fallen(known.accepted_figure, known.told, figure)
            self._open[trouble.key] = replace(
                known,
                text=trouble.text,
                level=trouble.level,
                figure=figure,
                accepted_figure=accepted,
                told=told,
            )

        for key in self._open.keys() - {trouble.key for trouble in look.troubles}:
            one = self._open[key]
            # Of one that was open by the books nobody here knows when it was seen last.
            seen_at = self._seen.setdefault(key, look.at)
            samples = look.samples or (look.sample,)
            if is_over(samples, seen_at, one.about, episodes.kind_of(one)):
                del self._open[key], self._seen[key]
                self._over[one.id] = replace(one, ended_at=seen_at)

    def _send(
        self, known: Sequence[Episode], now: datetime, by_stamps: datetime | None = None
    ) -> None:
        """Send what is due, unless the last is on its way still, or failed a moment ago.

        It is stamped by the database's clock where there is one: of several consoles each has its
        own, and one that was wrong for a moment would keep the channel silent until then.
        """
        if self._sending is not None or time.monotonic() < self._until:
            return
        found = due(known, self._name, now, self._after, self._remind, by_stamps=by_stamps)
        if found is not None:
            self._sending = Sending(self._channel, found, by_stamps or now)
            self._wait(ENOUGH)

    def _wait(self, seconds: float) -> None:
        """See what becomes of what is on its way; it may get through after its time, too."""
        sending = self._sending
        if sending is None:
            return
        if not sending.has_ended(seconds):
            if seconds:
                self._failed(f"no end within {seconds:g} s")
            elif sending.seconds > LONGEST_PAUSE:
                self._sending = None
            return
        self._sending = None
        if sending.error:
            if seconds:
                self._failed(sending.error)
            return
        self._until, self._pause = 0.0, 0.0
        metrics.tried(self._name, well=True)
        found = sending.message
        counts = {
            "new": len(found.began),
            "grown": len(found.grown),
            "reminded": len(found.reminded),
        }
        log.info("alert_sent", channel=self._name, **counts, over=len(found.ended))
        self._unnoted |= {one.id: (one, said) for one, said in found.told(sending.at)}

    def _failed(self, why: str) -> None:
        self._hold_back()
        metrics.tried(self._name, well=False)
        log.warning("alert_not_sent", channel=self._name, error=why, seconds=self._pause)

    def _hold_back(self) -> None:
        """Send nothing for longer than the last time."""
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._until = time.monotonic() + self._pause


async def keep_telling(config: Settings, channels: Sequence[Channel], lookout: Lookout) -> None:
    """Tell what is due after each look, until cancelled; on no channel because of another later.

    Args:
        config: see `Teller`.
        channels: where; nothing is done where there are none.
        lookout: who looks.
    """
    tellers = [Teller(config, channel) for channel in channels]
    await asyncio.gather(*(_keep_telling(teller, lookout) for teller in tellers))


async def _keep_telling(teller: Teller, lookout: Lookout) -> None:
    while True:
        await asyncio.sleep(SECONDS)
        if lookout.latest is None:
            continue
        try:
            await asyncio.to_thread(teller.tell, lookout.latest)
        except Exception:
            log.exception("not_told")
