"""The heartbeats of services: which are alive, and what they report of their queues."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.models import ServiceHeartbeat

FRESH = timedelta(seconds=30)
"""The greatest age of a heartbeat whose figures count."""
SHOWN = timedelta(hours=1)
"""How long a stopped instance is still shown."""

EXPECTED = (
    "services.ingress",
    "services.orders",
    "services.kyc",
    "services.secrets",
    "services.notifier",
    "services.audit",
    "services.portal",
    "relay",
)
"""The services of a complete system; without the console, which runs this code, and the standing
proof, which is optional (`alerts.py`)."""


@dataclass(frozen=True, slots=True)
class QueueBeat:
    """One instance's report of a queue that it consumes, or a connection that it publishes over.

    See `shared.telemetry.heartbeat.QueueFigures`. For other dependencies `where` is their address.
    Older versions report no state: then it is empty.
    """

    handled: int = 0
    rate: float = 0.0
    unacked: int = 0
    reached: datetime | None = None
    state: str = ""
    reason: str = ""
    lacks: str = ""
    since: datetime | None = None
    where: str = ""
    starttls: bool = False
    reached_in: Mapping[str, datetime] = field(default_factory=dict)

    def reached_of(self, queue: str, part: str) -> datetime | None:
        """Return the time of the newest message that it has handled from one shard of a queue; None
        if it does not report it."""
        # An instance without shards reports the queue itself.
        return self.reached_in.get(part) or (
            self.reached if part == queue and not self.reached_in else None
        )


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of one process.

    Attributes:
        service: such as `services.orders`.
        instance: host and process.
        version: of the product.
        started_at: when it started.
        seen_at: the time of the heartbeat, by the reader's clock.
        queues: by the name of each queue that it consumes, or connection that it publishes over.
    """

    service: str
    instance: str
    version: str
    started_at: datetime
    seen_at: datetime
    queues: Mapping[str, QueueBeat]


def read(session: Session, now: datetime) -> Sequence[Beat]:
    """Return the heartbeats that are younger than `SHOWN`, and the newest of each service.

    Args:
        session: the transaction.
        now: the time by the reader's clock; the age of a heartbeat is by the database's.
    """
    ago = func.clock_timestamp() - ServiceHeartbeat.seen_at
    rows = session.execute(
        select(ServiceHeartbeat, ago.label("ago")).order_by(
            ServiceHeartbeat.service, ServiceHeartbeat.seen_at.desc()
        )
    ).all()
    newest = {row.service: row.seen_at for row, _ in reversed(rows)}
    return [
        Beat(
            row.service,
            row.instance,
            row.version,
            row.started_at,
            now - ago,
            {name: _queue(report, now) for name, report in row.queues.items()},
        )
        for row, ago in rows
        if ago < SHOWN or row.seen_at == newest[row.service]
    ]


def lacking(beats: Sequence[Beat], what: str, now: datetime) -> QueueBeat | None:
    """Return the report of the process that has waited longest for a dependency, or None.

    Args:
        beats: the heartbeats.
        what: the dependency, such as `mail`; see `shared.bus.broker.standing.PartStatus`.
        now: the time; heartbeats older than `FRESH` do not count.
    """
    found = [
        report
        for beat in beats
        if now - beat.seen_at <= FRESH
        for report in beat.queues.values()
        if report.state == "holding" and report.lacks == what
    ]
    return min(found, key=lambda report: report.since or now, default=None)


def _queue(report: Mapping[str, Any], now: datetime) -> QueueBeat:
    reached = _time(report.get("reached"))
    return QueueBeat(
        state=str(report.get("state", "")),
        reason=str(report.get("reason", "")),
        lacks=str(report.get("lacks", "")),
        since=_time(report.get("since")),
        where=str(report.get("where", "")),
        starttls=bool(report.get("starttls", False)),
        handled=int(report.get("handled", 0)),
        rate=float(report.get("rate", 0.0)),
        unacked=int(report.get("unacked", 0)),
        # A sender writes this time, and may write one in the future.
        reached=reached and min(reached, now),
        reached_in={
            part: min(time, now)
            for part, text in (report.get("reached_in") or {}).items()
            if (time := _time(text)) is not None
        },
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
