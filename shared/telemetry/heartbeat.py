"""Writes a heartbeat of a process every ten seconds, with the state of its queues.

One row per process in `service_heartbeats`, which the console and `fellow` read.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.bus import metrics as bus
from shared.bus.broker.standing import PartStatus, Standing
from shared.db.models import ServiceHeartbeat
from shared.periodic import Periodic, keep_running
from shared.product import VERSION
from shared.telemetry import metrics

SECONDS = 10.0
STALE_SECONDS = 35.0  # three missed heartbeats
FORGET_AFTER = timedelta(days=1)
JOURNAL, API, WEBHOOKS, JOB = "journal", "API", "webhooks", "job "
"""Keys in a heartbeat of failing parts other than connections; a job has its name appended."""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """The state of a consumed queue or a publishing connection of a process.

    Attributes:
        told: whether it works, and why not.
        handled: messages handled since the start, with any outcome.
        unacked: unacknowledged messages.
        reached: time of the newest handled message, without retried ones.
        reached_in: the same by shard, for a queue that has several: one may lag far behind.
        where: address of the broker in use, `host:port`.
    """

    status: PartStatus
    handled: int = 0
    unacked: int = 0
    reached: datetime | None = None
    where: str = ""
    reached_in: Mapping[str, datetime] = field(default_factory=dict)


class Pulse:
    """Tracks whether the heartbeats of a process reach the database.

    A written heartbeat shows that the process can log in to the database and has its rights.
    """

    def __init__(self) -> None:
        self._at = float("-inf")

    def note(self) -> None:
        """Note that a heartbeat was written."""
        self._at = time.monotonic()

    @property
    def wrong(self) -> str:
        """A sentence if no heartbeat was written for `STALE_SECONDS`; else empty."""
        if time.monotonic() - self._at < STALE_SECONDS:
            return ""
        return (
            f"The database has accepted no heartbeat for {STALE_SECONDS:g} s: it is unreachable, "
            "refuses this process, or has another schema version."
        )


class HeartbeatWriter:
    """Upserts the heartbeat row of one process.

    Args:
        service: such as `services.orders`.
        uses: further servers that the process uses, by name, such as `mail`: the address (`where`)
            and how it connects, which other processes cannot know by their settings. It is read at
            each heartbeat.
    """

    def __init__(self, service: str, uses: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._service = service
        self._uses = {} if uses is None else uses
        # Has the process id, so the writer must be created after a fork.
        self._instance = f"{socket.gethostname()}:{os.getpid()}"
        self._started = datetime.now(UTC)
        self._last: tuple[datetime, Mapping[str, QueueFigures]] = (self._started, {})

    def beat(self, session: Session, queues: Mapping[str, QueueFigures] | None = None) -> None:
        """Write the row, and delete rows of this service older than `FORGET_AFTER`.

        `seen_at` uses the database's clock, so that a host whose clock is wrong neither seems
        silent nor deletes the rows of others.

        Args:
            session: the transaction.
            queues: the consumed queues and the publishing connections.
        """
        now = datetime.now(UTC)
        queues = {**(queues or {}), **_figures(_problems())}
        row = {
            "service": self._service,
            "instance": self._instance,
            "version": VERSION,
            "started_at": self._started,
            "seen_at": func.clock_timestamp(),
            "queues": dict(self._uses)
            | {name: self._state(name, queue, now) for name, queue in queues.items()},
        }
        new = insert(ServiceHeartbeat).values(row)
        session.execute(new.on_conflict_do_update(index_elements=["service", "instance"], set_=row))
        session.execute(
            delete(ServiceHeartbeat).where(
                ServiceHeartbeat.service == self._service,
                ServiceHeartbeat.seen_at < func.clock_timestamp() - FORGET_AFTER,
            )
        )
        self._last = (now, queues)

    def _state(self, name: str, queue: QueueFigures, now: datetime) -> dict[str, Any]:
        then, before = self._last
        seconds = (now - then).total_seconds()
        handled = queue.handled - (before[name].handled if name in before else 0)
        shards = {part: time.isoformat() for part, time in queue.reached_in.items()}
        return {
            "state": queue.status.state,
            "reason": queue.status.reason,
            "lacks": queue.status.lacks,
            "where": queue.where,
            "since": queue.status.since.isoformat() if queue.status.since else None,
            "handled": queue.handled,
            "unacked": queue.unacked,
            "rate": round(handled / seconds, 2) if seconds > 0 else 0.0,
            "reached": queue.reached.isoformat() if queue.reached else None,
        } | ({"reached_in": shards} if shards else {})


def _problems() -> dict[str, str]:
    """Return descriptions of failing parts that any process may have, by key."""
    found = {
        f"{JOB}{name}": f"the job {name} has not gone well for {seconds / 60:.0f} min"
        + (f": {error}" if error else ", and has not ended since")
        for name, (seconds, error) in metrics.late_jobs().items()
    }
    if missed := bus.missed_lately():
        found[JOURNAL] = f"the journal is not known to have {missed:,} messages of the last hour"
    return found


def _figures(problems: Mapping[str, str]) -> dict[str, QueueFigures]:
    return {part: QueueFigures(PartStatus("failing", why)) for part, why in problems.items()}


async def run_heartbeat(
    service: str,
    standings: Callable[[], Sequence[Standing]],
    pulse: Pulse | None = None,
    problems: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Write heartbeats on the event loop until cancelled, for a process that consumes nothing.

    Args:
        service: such as `services.ingress`.
        standings: returns the states of its current connections to the broker.
        pulse: is notified of each heartbeat.
        problems: returns descriptions of further failing parts, by key.
    """
    writer = HeartbeatWriter(service)

    def beat(session: Session) -> None:
        figures = {each.part: QueueFigures(each.status, where=each.where) for each in standings()}
        writer.beat(session, figures | _figures(problems()))

    job = Periodic("heartbeat", SECONDS, beat)

    def once() -> None:
        job.once()
        if pulse is not None:
            pulse.note()

    await keep_running(job.name, job.seconds, once)
