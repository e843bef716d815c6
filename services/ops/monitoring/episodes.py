"""A trouble from its beginning to its end, kept in the database, and what people have said of it.

Each console writes what it sees; an index lets no trouble be open twice. One that was not seen for
`OVER` by somebody who looked has ended, and when it comes back it is another. What cannot be seen
has not ended: while the broker is away or a queue does not answer, nobody knows of that; and after
an absence, the console's own or the database's, one look is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import delete, or_, select, text
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, about
from services.ops.monitoring.alerts import NEEDED, Trouble
from services.ops.monitoring.queue_stats import Sample, unbroken_since
from shared.bus import outbox
from shared.bus.contract import topology
from shared.bus.contract.events import OpsTroubleChanged
from shared.db.models import OpsTrouble
from shared.ids import new_id

OVER = timedelta(seconds=30)
"""For how long a trouble is not seen that has ended; after that time without one, looks are not
one after another any more."""
SEEN_EVERY = timedelta(seconds=10)
KEPT = timedelta(days=30)
MUTED_FOR: Mapping[str, tuple[str, timedelta | None]] = {
    "1h": ("for an hour", timedelta(hours=1)),
    "8h": ("for eight hours", timedelta(hours=8)),
    "end": ("until it ends", None),
}
"""For how long a trouble can be muted; None is to its end."""
_OF_THE_BROKER = frozenset({queue.name for queue in topology.QUEUES} | {"ladder"})
_RUNGS = frozenset(rung.name for rung in topology.RETRY_LADDER)


@dataclass(frozen=True, slots=True)
class Episode:
    """One trouble, once.

    Attributes:
        id: its id.
        key: what is wrong; see `Trouble.key`.
        level: as of the trouble.
        about: as of the trouble.
        text: the newest sentence.
        began_at: when it was first seen.
        ended_at: when it was last seen, of one that has ended.
        acknowledged_by: who looks after it; empty while nobody does.
        acknowledged_at: since when.
        note: what they said.
        muted_by: who does not want to hear of it; empty while nobody does.
        muted_until: how long; None: to its end.
        told: what was sent of it, by channel; see `alerting`.
    """

    id: UUID
    key: str
    level: str
    about: str
    text: str
    began_at: datetime
    ended_at: datetime | None = None
    acknowledged_by: str = ""
    acknowledged_at: datetime | None = None
    note: str = ""
    muted_by: str = ""
    muted_until: datetime | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    def is_muted(self, now: datetime) -> bool:
        """Whether nobody is told of it."""
        return bool(self.muted_by) and (self.muted_until is None or self.muted_until > now)

    @classmethod
    def of(cls, row: OpsTrouble) -> "Episode":
        """What a row says."""
        return cls(**{name: getattr(row, name) for name in cls.__slots__})


def keep(
    session: Session, samples: Sequence[Sample], troubles: Sequence[Trouble]
) -> dict[str, Episode]:
    """Write down what was seen, and the end of what was not.

    Args:
        session: the transaction.
        samples: what the troubles were found in, oldest first.
        troubles: what is wrong; of several with one key the first counts.

    Returns:
        The open troubles, by key.
    """
    now = samples[-1].at
    seen = {trouble.key: trouble for trouble in reversed(troubles)}
    rows = {row.key: row for row in session.scalars(_OPEN)}
    for key in seen.keys() - rows.keys():
        trouble = seen[key]
        begin(
            session,
            Episode(new_id(), key, trouble.level, trouble.about, trouble.text, began_at=now),
            now,
        )
    for key, row in rows.items():
        if key in seen or _is_hidden(samples[-1], row):
            _go_on(row, seen.get(key), now)
        elif now - max(row.seen_at, _visible_since(samples, row)) > OVER:
            row.ended_at = row.seen_at
    session.flush()
    session.execute(delete(OpsTrouble).where(OpsTrouble.ended_at < now - KEPT))
    return {row.key: Episode.of(row) for row in session.scalars(_OPEN)}


def begin(session: Session, one: Episode, now: datetime) -> None:
    """Write the beginning of a trouble down, unless it is open already.

    Args:
        session: the transaction.
        one: the trouble.
        now: when it was last seen.
    """
    names = ("id", "key", "level", "about", "text", "began_at")
    session.execute(_BEGIN, {name: getattr(one, name) for name in names} | {"seen_at": now})


def note_told(session: Session, one: Episode, channel: str, said: Mapping[str, Any]) -> None:
    """Note what was sent of a trouble, unless something later is noted.

    Args:
        session: the transaction.
        one: the trouble, by its key where that is open under another id.
        channel: the name of the channel.
        said: what of it, and when.
    """
    told = msgspec.json.encode({channel: said}).decode()
    values = {"id": one.id, "key": one.key, "told": told, "channel": channel, "at": said["at"]}
    session.execute(_NOTE_TOLD, values)


def _go_on(row: OpsTrouble, trouble: Trouble | None, now: datetime) -> None:
    if trouble is not None and (row.text, row.level) != (trouble.text, trouble.level):
        row.text, row.level = trouble.text, trouble.level
    if now - row.seen_at > SEEN_EVERY:
        row.seen_at = now


def _is_hidden(sample: Sample, row: OpsTrouble) -> bool:
    if row.about not in _OF_THE_BROKER:
        return False
    queues = _RUNGS if row.about == "ladder" else {row.about}
    return sample.broker_error is not None or not queues.isdisjoint(sample.silent)


def _visible_since(samples: Sequence[Sample], row: OpsTrouble) -> datetime:
    """Since when a trouble would have been seen at every look, were it there."""
    queue = row.about if row.about in _OF_THE_BROKER - {"ladder"} else None
    since = unbroken_since(samples, OVER, queue)
    kind = row.key.removeprefix(f"{row.about}: ")
    return since if queue is None else since + NEEDED.get(kind, timedelta(0))


def find(session: Session, id_: UUID) -> Episode | None:
    """One trouble, also one that has ended; None when there is none."""
    row = session.get(OpsTrouble, id_)
    return None if row is None else Episode.of(row)


def newest(session: Session, most: int) -> list[Episode]:
    """Troubles: those that are open, then those that have ended, the newest first.

    Args:
        session: the transaction.
        most: how many at most.
    """
    query = select(OpsTrouble).order_by(
        OpsTrouble.ended_at.desc().nulls_first(), OpsTrouble.began_at.desc()
    )
    return [Episode.of(row) for row in session.scalars(query.limit(most))]


def acknowledge(session: Session, id_: UUID, actor: Actor, note: str, now: datetime) -> bool:
    """Say that somebody looks after a trouble. Whoever says so last, does.

    Args:
        session: the transaction.
        id_: of the trouble.
        actor: who.
        note: what they want others to know; may be empty.
        now: when.

    Returns:
        False when it has ended.
    """
    row = _open(session, id_)
    if row is None:
        return False
    row.acknowledged_by, row.acknowledged_at, row.note = actor.name, now, note
    _tell(session, row, actor, "acknowledged", note=note)
    return True


def mute(session: Session, id_: UUID, actor: Actor, until: datetime | None) -> bool:
    """Have nobody told of a trouble.

    Args:
        session: the transaction.
        id_: of the trouble.
        actor: who.
        until: how long; None: until it ends.

    Returns:
        False when it has ended.
    """
    row = _open(session, id_)
    if row is None:
        return False
    row.muted_by, row.muted_until = actor.name, until
    _tell(session, row, actor, "muted", until=until)
    return True


def unmute(session: Session, id_: UUID, actor: Actor) -> bool:
    """Take that back; False when it has ended."""
    row = _open(session, id_)
    if row is None:
        return False
    row.muted_by, row.muted_until = "", None
    _tell(session, row, actor, "unmuted")
    return True


def untold(session: Session, since: datetime) -> list[Episode]:
    """Those of which there may be something to tell: open, or ended since a time."""
    ended = or_(OpsTrouble.ended_at.is_(None), OpsTrouble.ended_at > since)
    return [Episode.of(row) for row in session.scalars(select(OpsTrouble).where(ended))]


def _open(session: Session, id_: UUID) -> OpsTrouble | None:
    query = select(OpsTrouble).where(OpsTrouble.id == id_, OpsTrouble.ended_at.is_(None))
    return session.scalar(query.with_for_update())


def _tell(session: Session, row: OpsTrouble, actor: Actor, action: Any, **more: Any) -> None:
    fact = OpsTroubleChanged(
        by=actor.name, address=actor.address, action=action, trouble=row.key, **more
    )
    outbox.add(session, [about(fact, row.id)])


_OPEN = (
    select(OpsTrouble)
    .where(OpsTrouble.ended_at.is_(None))
    .execution_options(populate_existing=True)
    # In one order, so that two consoles do not wait for each other.
    .order_by(OpsTrouble.key)
    .with_for_update()
)
_BEGIN = text("""
    INSERT INTO ops_troubles (id, key, level, about, text, began_at, seen_at)
    VALUES (:id, :key, :level, :about, :text, :began_at, :seen_at)
    ON CONFLICT DO NOTHING
""")
_NOTE_TOLD = text("""
    UPDATE ops_troubles SET told = told || CAST(:told AS jsonb)
    WHERE (id = :id OR (key = :key AND ended_at IS NULL
                        AND NOT EXISTS (SELECT FROM ops_troubles WHERE id = :id)))
          AND coalesce(CAST(told -> CAST(:channel AS text) ->> 'at' AS timestamptz)
                       <= CAST(:at AS timestamptz), true)
""")
