"""Looking things up in the audit log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from shared.db.models import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows: those that fit everything that is given.

    Attributes:
        who: a part of the actor or of the address, in whatever case.
        what: the type, or its first words, such as `kyc`.
        about: the order, account, message or user, as the row names it.
        since: the first day, in UTC.
        until: the last day, in UTC.
    """

    who: str = ""
    what: str = ""
    about: str = ""
    since: date | None = None
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One row; see the table `audit_log`."""

    sequence: int
    happened_at: datetime
    actor: str
    address: str
    type: str
    correlation_id: str
    data: str


def search(
    session: Session, wanted: Wanted, *, limit: int, before: int | None = None
) -> Sequence[Entry]:
    """Rows, the newest first.

    Args:
        session: may read the audit log.
        wanted: which.
        limit: how many at most.
        before: only rows before this sequence number: the last of the page before.
    """
    conditions: list[ColumnElement[bool]] = []
    if before is not None:
        conditions.append(AuditEntry.sequence < before)
    if wanted.who:
        conditions.append(
            or_(
                AuditEntry.actor.icontains(wanted.who, autoescape=True),
                AuditEntry.address.icontains(wanted.who, autoescape=True),
            )
        )
    if wanted.what:
        conditions.append(
            or_(
                AuditEntry.type == wanted.what,
                AuditEntry.type.startswith(f"{wanted.what}.", autoescape=True),
            )
        )
    if wanted.about:
        conditions.append(
            or_(
                AuditEntry.correlation_id == wanted.about,
                AuditEntry.data.contains(wanted.about, autoescape=True),
            )
        )
    if wanted.since:
        conditions.append(AuditEntry.happened_at >= _midnight(wanted.since))
    if wanted.until:
        conditions.append(AuditEntry.happened_at < _midnight(wanted.until + timedelta(days=1)))
    rows = session.execute(
        select(
            AuditEntry.sequence,
            AuditEntry.happened_at,
            AuditEntry.actor,
            AuditEntry.address,
            AuditEntry.type,
            AuditEntry.correlation_id,
            AuditEntry.data,
        )
        .where(*conditions)
        .order_by(AuditEntry.sequence.desc())
        .limit(limit)
    )
    return [Entry(*row) for row in rows.all()]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
