"""Which services are alive, by their heartbeats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.models import ServiceHeartbeat

FRESH = timedelta(seconds=30)
"""How old a heartbeat may be for its figures to count."""
SHOWN = timedelta(hours=1)
"""For how long an instance that stopped is still shown."""

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
"""What a whole system consists of, beside the console itself, which looks, and the standing proof,
which need not stand (`alerts.py`)."""


@dataclass(frozen=True, slots=True)
class QueueBeat:
    """What one instance says of a queue that it consumes, or of a connection that it publishes by.

    See `shared.telemetry.heartbeat.QueueFigures`; of what else it uses there is `where` and how it
    is met. The state is empty in what an older version has written.
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


@dataclass(frozen=True, slots=True)
class Beat:
    """The last heartbeat of one process.

    Attributes:
        service: such as `services.orders`.
        instance: host and process.
        version: of the product.
        started_at: when it started.
        seen_at: when it was last heard of, by the clock of whoever reads it.
        queues: by the name of each queue that it consumes, or connection that it publishes by.
    """

    service: str
    instance: str
    version: str
    started_at: datetime
    seen_at: datetime
    queues: Mapping[str, QueueBeat]


def read(session: Session, now: datetime) -> Sequence[Beat]:
    """The heartbeats of everything that was heard of within `SHOWN`, and of each service's last.

    Args:
        session: the transaction.
        now: the time by the reader's clock; how long ago something was heard of, the database says.
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
            {name: _queue(said, now) for name, said in row.queues.items()},
        )
        for row, ago in rows
        if ago < SHOWN or row.seen_at == newest[row.service]
    ]


def lacking(beats: Sequence[Beat], what: str, now: datetime) -> QueueBeat | None:
    """What the process says that has kept a batch for longest, since something is away.

    Args:
        beats: the heartbeats.
        what: what is away, such as `mail`; see `shared.bus.broker.standing.Told`.
        now: heartbeats that are not `FRESH` by then do not count.
    """
    found = [
        said
        for beat in beats
        if now - beat.seen_at <= FRESH
        for said in beat.queues.values()
        if said.state == "holding" and said.lacks == what
    ]
    return min(found, key=lambda said: said.since or now, default=None)


def _queue(said: Mapping[str, Any], now: datetime) -> QueueBeat:
    reached = _time(said.get("reached"))
    return QueueBeat(
        state=str(said.get("state", "")),
        reason=str(said.get("reason", "")),
        lacks=str(said.get("lacks", "")),
        since=_time(said.get("since")),
        where=str(said.get("where", "")),
        starttls=bool(said.get("starttls", False)),
        handled=int(said.get("handled", 0)),
        rate=float(said.get("rate", 0.0)),
        unacked=int(said.get("unacked", 0)),
        # As a sender has written it, who may mean tomorrow.
        reached=reached and min(reached, now),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
