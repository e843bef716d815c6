"""A trouble from its beginning to its end, kept in the database, and what people have said of it.

Each console writes what it sees; an index lets no trouble be open twice. One that was not seen for
`OVER` by somebody who looked has ended, and when it comes back it is another. What cannot be seen
has not ended (`visibility.py`); and after an absence, the console's own or the database's, one look
is none.
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
from services.ops.monitoring.alerts import Trouble
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.visibility import is_hidden, is_over
from shared.bus import outbox
from shared.bus.contract.events import OpsTroubleChanged
from shared.db.models import OpsTrouble
from shared.db.session import time_by_both_clocks
from shared.ids import new_id

SEEN_EVERY = timedelta(seconds=10)
KEPT = timedelta(days=30)
MUTED_FOR: Mapping[str, tuple[str, timedelta | None]] = {
    "1h": ("for an hour", timedelta(hours=1)),
    "8h": ("for eight hours", timedelta(hours=8)),
    "end": ("until it ends", None),
}
"""For how long a trouble can be muted; None is to its end."""


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
        figure: how much it is now; see `Trouble.figure`.
        accepted_figure: how much it was when it was last acknowledged or muted.
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
    figure: int = 0
    accepted_figure: int | None = None

    def is_muted(self, now: datetime) -> bool:
        """Whether nobody is told of it."""
        return bool(self.muted_by) and (self.muted_until is None or self.muted_until > now)

    @classmethod
    def beginning(cls, trouble: Trouble, now: datetime) -> "Episode":
        """A trouble that is seen for the first time."""
        return cls(
            new_id(),
            trouble.key,
            trouble.level,
            trouble.about,
            trouble.text,
            began_at=now,
            figure=trouble.figure,
        )

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
        begin(session, Episode.beginning(seen[key], now), now)
    for key, row in rows.items():
        kind = kind_of(row)
        is_out_of_sight = is_hidden(samples[-1], row.about, kind)
        if key in seen or is_out_of_sight:
            _go_on(row, seen.get(key), now, is_out_of_sight)
        elif is_over(samples, row.seen_at, row.about, kind):
            row.ended_at = row.seen_at
    session.flush()
    kept_from = min(now, time_by_both_clocks(session)) - KEPT
    session.execute(delete(OpsTrouble).where(OpsTrouble.ended_at < kept_from))
    return {row.key: Episode.of(row) for row in session.scalars(_OPEN)}


def kind_of(one: "Episode | OpsTrouble") -> str:
    """As of the trouble."""
    return one.key.removeprefix(f"{one.about}: ")


def begin(session: Session, one: Episode, now: datetime) -> None:
    """Write the beginning of a trouble down, unless it is open already.

    Args:
        session: the transaction.
        one: the trouble.
        now: when it was last seen.
    """
    names = ("id", "key", "level", "about", "text", "began_at", "figure")
    session.execute(_BEGIN, {name: getattr(one, name) for name in names} | {"seen_at": now})


def end(session: Session, one: Episode) -> None:
    """Write the end of a trouble down, unless it was seen later.

    Args:
        session: the transaction.
        one: the trouble, by its key where that is open under another id.
    """
    session.execute(_END, {"id": one.id, "key": one.key, "ended_at": one.ended_at})


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


def _go_on(row: OpsTrouble, trouble: Trouble | None, now: datetime, is_hidden: bool) -> None:
    if trouble is not None and (row.text, row.level) != (trouble.text, trouble.level):
        row.text, row.level = trouble.text, trouble.level
        if is_hidden:  # it is what is seen of it
            row.figure = max(row.figure, trouble.figure)
        else:
            row.figure = trouble.figure
            row.accepted_figure, row.told = fallen(row.accepted_figure, row.told, row.figure)
    if now - row.seen_at > SEEN_EVERY:
        row.seen_at = now


def fallen(
    accepted: int | None, told: Mapping[str, Any], figure: int
) -> tuple[int | None, dict[str, Any]]:
    """What people know of how much a trouble is, once that has fallen below a tenth of it.

    It falls with the figure: from there a trouble that grows again is told of again, which never
    ended and never reached twice of what it was at its worst. Less than that is no news: what comes
    off a rung of the ladder is in its queue for a moment, and a quarter stays.

    Args:
        accepted: how much it was when it was acknowledged or muted.
        told: what was sent of it, by channel.
        figure: how much it is.
    """

    def known(before: int | None) -> int | None:
        return figure if before is not None and 10 * figure < before else before

    return known(accepted), {
        channel: said | {"figure": known(said.get("figure"))} if "figure" in said else said
        for channel, said in told.items()
    }


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


def acknowledge(
    session: Session, id_: UUID, actor: Actor, note: str, now: datetime, shown: int | None = None
) -> bool:
    """Say that somebody looks after a trouble. Whoever says so last, does.

    Args:
        session: the transaction.
        id_: of the trouble.
        actor: who.
        note: what they want others to know; may be empty.
        now: when.
        shown: how much it was when they looked; as it is when None.

    Returns:
        False when it has ended.
    """
    row = _open(session, id_)
    if row is None:
        return False
    row.acknowledged_by, row.acknowledged_at, row.note = actor.name, now, note
    row.accepted_figure = row.figure if shown is None else min(shown, row.figure)
    _tell(session, row, actor, "acknowledged", note=note)
    return True


def mute(
    session: Session, id_: UUID, actor: Actor, until: datetime | None, shown: int | None = None
) -> bool:
    """Have nobody told of a trouble.

    Args:
        session: the transaction.
        id_: of the trouble.
        actor: who.
        until: how long; None: until it ends.
        shown: how much it was when they looked; as it is when None.

    Returns:
        False when it has ended.
    """
    row = _open(session, id_)
    if row is None:
        return False
    row.muted_by, row.muted_until = actor.name, until
    row.accepted_figure = row.figure if shown is None else min(shown, row.figure)
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
    fact = OpsTroubleChanged(**actor.fields, action=action, trouble=row.key, **more)
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
    INSERT INTO ops_troubles (id, key, level, about, text, began_at, seen_at, figure)
    VALUES (:id, :key, :level, :about, :text, :began_at, :seen_at, :figure)
    ON CONFLICT DO NOTHING
""")
_END = text("""
    UPDATE ops_troubles SET ended_at = :ended_at
    WHERE (id = :id OR key = :key) AND ended_at IS NULL AND seen_at <= :ended_at
""")
_NOTE_TOLD = text("""
    UPDATE ops_troubles SET told = told || CAST(:told AS jsonb)
    WHERE (id = :id OR (key = :key AND ended_at IS NULL
                        AND NOT EXISTS (SELECT FROM ops_troubles WHERE id = :id)))
          AND coalesce(CAST(told -> CAST(:channel AS text) ->> 'at' AS timestamptz)
                       NOT BETWEEN CAST(:at AS timestamptz) AND clock_timestamp(), true)
""")
