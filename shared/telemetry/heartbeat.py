"""A process says every ten seconds that it is alive, and how it stands with its queues.

One small row a process, in `service_heartbeats`; ops staff read it.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.bus.broker.standing import Standing, Told
from shared.db.models import ServiceHeartbeat
from shared.periodic import Periodic, keep_running
from shared.product import VERSION

SECONDS = 10.0
STALE_SECONDS = 35.0  # three that did not come
FORGET_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How a process stands with a queue that it consumes, or a connection that it publishes by.

    Attributes:
        told: whether it works, and why not.
        handled: messages since it started, whatever became of them.
        unacked: messages in hand.
        reached: the time of the newest message it has handled; of those that came first hand, not
            by the retry ladder.
        where: the address of the broker in use, `host:port`.
    """

    told: Told
    handled: int = 0
    unacked: int = 0
    reached: datetime | None = None
    where: str = ""


class Pulse:
    """Whether the heartbeats of a process reach the database.

    Who is written down there has signed in, and has its rights: it is the least of its work.
    """

    def __init__(self) -> None:
        self._at = float("-inf")

    def beaten(self) -> None:
        """One was written."""
        self._at = time.monotonic()

    @property
    def wrong(self) -> str:
        """A sentence when none was written lately; empty while all is well."""
        if time.monotonic() - self._at < STALE_SECONDS:
            return ""
        return (
            f"The database has taken no heartbeat for {STALE_SECONDS:g} s: it is away, or refuses "
            "this process, or is of another version."
        )


class Heart:
    """Beats for one process.

    Args:
        service: such as `services.orders`.
        uses: what else it needs, by name, such as `mail`: where it is (`where`), and how it is met.
            Others cannot know it by their own settings.
    """

    def __init__(self, service: str, uses: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._service = service
        self._uses = {} if uses is None else uses  # which may change
        # Of this process, so made after a fork.
        self._instance = f"{socket.gethostname()}:{os.getpid()}"
        self._started = datetime.now(UTC)
        self._last: tuple[datetime, Mapping[str, QueueFigures]] = (self._started, {})

    def beat(self, session: Session, queues: Mapping[str, QueueFigures] | None = None) -> None:
        """Write the row, and remove those of this service's instances that are long gone.

        Who is heard of goes by the database's clock, which is one for all: a host whose clock is
        wrong is neither silent for it, nor does it remove the others.

        Args:
            session: the transaction.
            queues: what the process consumes, and what it publishes by.
        """
        now = datetime.now(UTC)
        queues = queues or {}
        row = {
            "service": self._service,
            "instance": self._instance,
            "version": VERSION,
            "started_at": self._started,
            "seen_at": func.clock_timestamp(),
            "queues": dict(self._uses)
            | {name: self._said(name, queue, now) for name, queue in queues.items()},
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

    def _said(self, name: str, queue: QueueFigures, now: datetime) -> dict[str, Any]:
        then, before = self._last
        seconds = (now - then).total_seconds()
        handled = queue.handled - (before[name].handled if name in before else 0)
        return {
            "state": queue.told.state,
            "reason": queue.told.reason,
            "lacks": queue.told.lacks,
            "where": queue.where,
            "since": queue.told.since.isoformat() if queue.told.since else None,
            "handled": queue.handled,
            "unacked": queue.unacked,
            "rate": round(handled / seconds, 2) if seconds > 0 else 0.0,
            "reached": queue.reached.isoformat() if queue.reached else None,
        }


async def keep_beating(
    service: str, standings: Callable[[], Sequence[Standing]], pulse: Pulse | None = None
) -> None:
    """Beat until cancelled, for a process that runs on a loop and consumes nothing.

    Args:
        service: such as `services.ingress`.
        standings: gives those of its connections to the broker, which may be others by now.
        pulse: is told of each beat.
    """
    heart = Heart(service)

    def beat(session: Session) -> None:
        figures = {each.part: QueueFigures(each.told, where=each.where) for each in standings()}
        heart.beat(session, figures)

    job = Periodic("heartbeat", SECONDS, beat)

    def once() -> None:
        job.once()
        if pulse is not None:
            pulse.beaten()

    await keep_running(job.name, job.seconds, once)
