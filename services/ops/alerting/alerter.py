"""The job that sends due alerts: one console at a time, and from memory without the database.

`ops_troubles.told` records by channel what was sent of a trouble, in the transaction that holds the
channel's lock. A sent alert that could not be recorded, because the database failed or is
read-only, is kept in memory until it can be: only a crash in between repeats it. While the database
is unreachable, which is the most important alert, each console sends what it sees by itself, and
records that once the database is back, so that the end is sent too.
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
from services.ops.monitoring.poller import SnapshotPoller
from services.ops.monitoring.snapshot import Snapshot
from services.ops.monitoring.visibility import is_hidden, is_over
from shared.config.settings import Settings
from shared.db.deadline import within
from shared.db.session import database_time, is_database_unavailable, make_engine

SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0  # seconds until a failed channel is tried again
ENOUGH = 20.0
"""Seconds for one message, well below `IDLE_SECONDS`: a transaction is open meanwhile."""
PATIENCE = 10.0
"""Seconds for the database."""
LATELY = timedelta(days=1)
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")

log = structlog.get_logger()


class Alerter:
    """Sends due alerts on one channel. Not thread-safe.

    Args:
        config: uses `alert_after_seconds` and `alert_remind_seconds`.
        channel: the channel.
    """

    def __init__(self, config: Settings, channel: Channel) -> None:
        self._after = timedelta(seconds=config.alert_after_seconds)
        self._remind = timedelta(seconds=config.alert_remind_seconds)
        # A separate pool: pages that wait for a connection must not delay alerts.
        self._engine = make_engine(config, pool_size=1)
        self._channel, self._name = channel, channel.name
        metrics.begin(channel.name)
        self._until, self._pause = 0.0, 0.0
        self._sending: Sending | None = None
        self._open: dict[str, Episode] = {}
        self._seen: dict[str, datetime] = {}
        self._ended: dict[UUID, Episode] = {}
        self._unrecorded: dict[UUID, tuple[Episode, dict[str, Any]]] = {}
        self._is_from_memory = False

    def notify(self, snapshot: Snapshot) -> None:
        """Send the alerts that are due after a snapshot."""
        self._await_sending(0.0)
        is_blind = too_old(snapshot.at, datetime.now(UTC)) is not None
        if snapshot.sample.database_error is None and not is_blind:
            try:
                with within(PATIENCE):
                    self._notify_with_database()
            except Exception as error:
                if self._unrecorded:
                    self._hold_back()
                if not is_database_unavailable(error):
                    raise
            return
        self._update_memory(snapshot)
        self._apply_unrecorded()
        self._send([*self._open.values(), *self._ended.values()], datetime.now(UTC))
        for id_ in self._apply_unrecorded():
            del self._unrecorded[id_]

    def _notify_with_database(self) -> None:
        if self._is_from_memory:
            self._restore()
        if self._unrecorded:
            # First, in its own transaction: if it fails, what is sent now could not be recorded.
            with self._transaction() as session:
                self._record(session)
            self._unrecorded.clear()
        with self._transaction() as session:
            if not session.scalar(_LOCK, {"name": f"services.ops.alerting {self._name}"}):
                return
            now = datetime.now(UTC)
            known = episodes.notifiable(session, now - LATELY)
            self._open = {episode.key: episode for episode in known if episode.ended_at is None}
            self._send(known, now, database_time(session))
            self._record(session)
        self._apply_unrecorded()
        self._unrecorded.clear()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def _record(self, session: Session) -> None:
        for episode, record in self._unrecorded.values():
            episodes.note_alert(session, episode, self._name, record)

    def _apply_unrecorded(self) -> list[UUID]:
        """Add unrecorded sent alerts to the episodes in memory; return the ids of these."""
        kept: Sequence[dict[Any, Episode]] = (self._open, self._ended)
        found = []
        for of_kind in kept:
            for key, episode in of_kind.items():
                if episode.id in self._unrecorded:
                    _, record = self._unrecorded[episode.id]
                    of_kind[key] = replace(episode, told={**episode.told, self._name: record})
                    found.append(episode.id)
        return found

    def _restore(self) -> None:
        """Record what was sent while the database was unreachable."""
        with self._transaction() as session:
            # Ended episodes first: the same trouble may have begun again.
            for episode in (*self._ended.values(), *self._open.values()):
                episodes.begin(session, episode, episode.ended_at or datetime.now(UTC))
                if record := episode.told.get(self._name):
                    episodes.note_alert(session, episode, self._name, record)
                if episode.ended_at is not None:
                    episodes.end(session, episode)
        self._ended.clear()
        self._seen.clear()
        self._is_from_memory = False

    def _update_memory(self, snapshot: Snapshot) -> None:
        """Update the episodes in memory: new, changed and ended ones."""
        self._is_from_memory = True
        for trouble in snapshot.troubles:
            self._seen[trouble.key] = snapshot.at
            known = self._open.get(trouble.key) or snapshot.episodes.get(trouble.key)
            if known is None or known.id in self._ended:
                known = Episode.beginning(trouble, snapshot.at)
            if is_hidden(snapshot.sample, trouble.about, trouble.kind):  # the figure is a part only
                figure, accepted, told = known.figure, known.accepted_figure, known.told
                figure = max(figure, trouble.figure)
            else:
                figure = trouble.figure
                accepted, told = episodes.known_after_fall(
                    known.accepted_figure, known.told, figure
                )
            self._open[trouble.key] = replace(
                known,
                text=trouble.text,
                level=trouble.level,
                figure=figure,
                accepted_figure=accepted,
                told=told,
            )

        for key in self._open.keys() - {trouble.key for trouble in snapshot.troubles}:
            episode = self._open[key]
            # This console does not know when an episode from the database was last seen.
            seen_at = self._seen.setdefault(key, snapshot.at)
            samples = snapshot.samples or (snapshot.sample,)
            if is_over(samples, seen_at, episode.about, episodes.kind_of(episode)):
                del self._open[key], self._seen[key]
                self._ended[episode.id] = replace(episode, ended_at=seen_at)

    def _send(
        self, known: Sequence[Episode], now: datetime, database_now: datetime | None = None
    ) -> None:
        """Send what is due, unless the last message is under way or failed recently.

        The stamp is by the database's clock, if it is reachable: a console whose clock was ahead
        for a moment would keep the channel silent until that time.
        """
        if self._sending is not None or time.monotonic() < self._until:
            return
        found = due(known, self._name, now, self._after, self._remind, database_now=database_now)
        if found is not None:
            self._sending = Sending(self._channel, found, database_now or now)
            self._await_sending(ENOUGH)

    def _await_sending(self, seconds: float) -> None:
        """Handle the end of the message under way; it may be sent after its timeout too."""
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
        self._unrecorded |= {
            episode.id: (episode, record) for episode, record in found.records(sending.at)
        }

    def _failed(self, why: str) -> None:
        self._hold_back()
        metrics.tried(self._name, well=False)
        log.warning("alert_not_sent", channel=self._name, error=why, seconds=self._pause)

    def _hold_back(self) -> None:
        """Pause the channel, for longer each time."""
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        self._until = time.monotonic() + self._pause


async def keep_alerting(
    config: Settings, channels: Sequence[Channel], poller: SnapshotPoller
) -> None:
    """Send due alerts after each snapshot, until cancelled; channels do not delay each other.

    Args:
        config: see `Alerter`.
        channels: the configured channels; may be empty.
        poller: takes the snapshots.
    """
    alerters = [Alerter(config, channel) for channel in channels]
    await asyncio.gather(*(_keep_alerting(alerter, poller) for alerter in alerters))


async def _keep_alerting(alerter: Alerter, poller: SnapshotPoller) -> None:
    while True:
        await asyncio.sleep(SECONDS)
        if poller.latest is None:
            continue
        try:
            await asyncio.to_thread(alerter.notify, poller.latest)
        except Exception:
            log.exception("not_told")
