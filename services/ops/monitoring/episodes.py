"""Episodes in the database: a trouble from its beginning to its end, its operators and alerts.

Each console writes what it sees; a unique index allows one open episode of a trouble. An episode
ends once its trouble was absent from all samples for `OVER`; if it returns, it is a new one. A
trouble that cannot be seen has not ended (`visibility.py`), and after a gap in the samples, of the
console or of the database, one sample is not enough.
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
"""For how long a trouble can be muted; None: until it ends."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One occurrence of a trouble; see the table `ops_troubles`.

    Attributes:
        id: its id.
        key: see `Trouble.key`.
        level: the trouble's.
        about: the trouble's.
        text: the newest sentence.
        began_at: when it was first seen.
        ended_at: when an ended one was last seen.
        acknowledged_by: the operator who looks after it; empty if none does.
        acknowledged_at: since when.
        note: the operator's note.
        muted_by: the operator who muted it; empty if none did.
        muted_until: until when; None: until it ends.
        told: the last message about it, by channel; see `Due.records`.
        figure: its current size; see `Trouble.figure`.
        accepted_figure: its size when it was last acknowledged or muted.
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
        """Whether alerts about it are suppressed."""
        return bool(self.muted_by) and (self.muted_until is None or self.muted_until > now)

    @classmethod
    def beginning(cls, trouble: Trouble, now: datetime) -> "Episode":
        """Make the episode of a trouble that is seen for the first time."""
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
        """Make the episode of a row."""
        return cls(**{name: getattr(row, name) for name in cls.__slots__})


def keep(
    session: Session, samples: Sequence[Sample], troubles: Sequence[Trouble]
) -> dict[str, Episode]:
    """Begin, update and end episodes by the current troubles; delete those older than `KEPT`.

    Args:
        session: the transaction.
        samples: those that the troubles were found in, oldest first.
        troubles: the current ones; of several with one key the first counts.

    Returns:
        The open episodes, by key.
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


def kind_of(episode: "Episode | OpsTrouble") -> str:
    """Return the kind of its trouble; see `Trouble.kind`."""
    return episode.key.removeprefix(f"{episode.about}: ")


def begin(session: Session, episode: Episode, now: datetime) -> None:
    """Insert an episode, unless its trouble has an open one.

    Args:
        session: the transaction.
        episode: the episode.
        now: when its trouble was last seen.
    """
    names = ("id", "key", "level", "about", "text", "began_at", "figure")
    session.execute(_BEGIN, {name: getattr(episode, name) for name in names} | {"seen_at": now})


def end(session: Session, episode: Episode) -> None:
    """Record the end of an episode, unless its trouble was seen later.

    Args:
        session: the transaction.
        episode: the episode; found by its key if the open one has another id.
    """
    session.execute(_END, {"id": episode.id, "key": episode.key, "ended_at": episode.ended_at})


def note_alert(session: Session, episode: Episode, channel: str, record: Mapping[str, Any]) -> None:
    """Record a sent message about an episode, unless a later one is recorded.

    Args:
        session: the transaction.
        episode: the episode; found by its key if the open one has another id.
        channel: the name of the channel.
        record: from `Due.records`.
    """
    told = msgspec.json.encode({channel: record}).decode()
    values = {
        "id": episode.id,
        "key": episode.key,
        "told": told,
        "channel": channel,
        "at": record["at"],
    }
    session.execute(_NOTE_TOLD, values)


def _go_on(row: OpsTrouble, trouble: Trouble | None, now: datetime, is_hidden: bool) -> None:
    if trouble is not None and (row.text, row.level) != (trouble.text, trouble.level):
        row.text, row.level = trouble.text, trouble.level
        if is_hidden:  # the figure is a part only
            row.figure = max(row.figure, trouble.figure)
        else:
            row.figure = trouble.figure
            row.accepted_figure, row.told = known_after_fall(
                row.accepted_figure, row.told, row.figure
            )
    if now - row.seen_at > SEEN_EVERY:
        row.seen_at = now


def known_after_fall(
    accepted: int | None, told: Mapping[str, Any], figure: int
) -> tuple[int | None, dict[str, Any]]:
    """Return the known figures of a trouble, lowered to `figure` if that is below a tenth of them.

    So a trouble that grows again from there is alerted of again, although it never ended and does
    not reach twice its peak. A smaller fall is no recovery: messages that leave a delay queue are
    in their work queue for a moment.

    Args:
        accepted: the figure when it was acknowledged or muted.
        told: the last message about it, by channel.
        figure: the current figure.
    """

    def known(before: int | None) -> int | None:
        return figure if before is not None and 10 * figure < before else before

    return known(accepted), {
        channel: record | {"figure": known(record.get("figure"))} if "figure" in record else record
        for channel, record in told.items()
    }


def find(session: Session, id_: UUID) -> Episode | None:
    """Return an open or ended episode; None if there is none."""
    row = session.get(OpsTrouble, id_)
    return None if row is None else Episode.of(row)


def newest(session: Session, most: int) -> list[Episode]:
    """Return the open episodes, then the ended ones, each the newest first.

    Args:
        session: the transaction.
        most: the limit.
    """
    query = select(OpsTrouble).order_by(
        OpsTrouble.ended_at.desc().nulls_first(), OpsTrouble.began_at.desc()
    )
    return [Episode.of(row) for row in session.scalars(query.limit(most))]


def acknowledge(
    session: Session, id_: UUID, actor: Actor, note: str, now: datetime, shown: int | None = None
) -> bool:
    """Record the operator who looks after a trouble; the last one replaces others.

    Args:
        session: the transaction.
        id_: of the episode.
        actor: the operator.
        note: a note for other operators; may be empty.
        now: the time.
        shown: the figure that the operator saw; by default the current one.

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
    """Suppress alerts about a trouble.

    Args:
        session: the transaction.
        id_: of the episode.
        actor: the operator.
        until: until when; None: until it ends.
        shown: the figure that the operator saw; by default the current one.

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
    """Send alerts about a trouble again; return False when it has ended."""
    row = _open(session, id_)
    if row is None:
        return False
    row.muted_by, row.muted_until = "", None
    _tell(session, row, actor, "unmuted")
    return True


def notifiable(session: Session, since: datetime) -> list[Episode]:
    """Return the episodes that an alert may be due about: open, or ended since a time."""
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
    # In a fixed order, so that two consoles cannot deadlock.
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
