"""Searches the audit log, and checks its chain of hashes."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO
from uuid import UUID

from sqlalchemy import String, literal_column, or_, select, text
from sqlalchemy.orm import Session

from shared.db.models import AUDIT_WORDS, AuditEntry
from shared.security.audit_chain import GENESIS, Content, link

CONSUMER = "services.audit"
"""The consumer in whose inbox the written facts are."""
CHUNK = 1_000
_LOST_SHOWN = 10
_WORDS = literal_column(f"({AUDIT_WORDS})", String)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row; see the table `audit_log`. `hash` is in hexadecimal."""

    sequence: int
    happened_at: datetime
    type: str
    actor: str
    address: str
    correlation_id: str
    data: str
    event_id: UUID
    hash: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the chain.

    Attributes:
        sequence: of the row; None without a row.
        text: a sentence.
    """

    sequence: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check of the whole log.

    Attributes:
        rows: their number.
        head: the last row's sequence and hash, in hexadecimal. Kept elsewhere, it shows later
            whether any row up to there was rewritten.
        faults: empty if the log is intact.
    """

    rows: int
    head: tuple[int, str]
    faults: tuple[Fault, ...]


def search(
    session: Session,
    *,
    words: str = "",
    type_: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 100,
    sees_persons: bool = True,
) -> Sequence[Entry]:
    """Return rows, newest first.

    Args:
        session: may read the log.
        words: a text anywhere in the row, in any case.
        type_: the fact's type; with a `*` at the end, a prefix of it.
        since: happened at this time or later.
        until: happened before this time.
        before: only rows with a lower sequence: where the previous page ended.
        limit: the most rows.
        sees_persons: whether the words may match masked data. For other users they match a whole id
            or operator's name, or part of a type, so that a search reveals nothing masked.
    """
    shown = [getattr(AuditEntry, name) for name in Entry.__slots__]
    query = select(*shown).order_by(AuditEntry.sequence.desc()).limit(limit)
    if words:
        # For the other users too, since it has an index and the conditions below narrow it.
        query = query.where(_WORDS.icontains(words, autoescape=True))
    if words and not sees_persons:
        named = [AuditEntry.type.icontains(words, autoescape=True)]
        # A business's address is an actor too, and a match would confirm it.
        if "@" not in words:
            named += [AuditEntry.actor == words, AuditEntry.correlation_id == words]
        query = query.where(or_(*named))
    if type_.endswith("*"):
        query = query.where(AuditEntry.type.startswith(type_[:-1], autoescape=True))
    elif type_:
        query = query.where(AuditEntry.type == type_)
    if since is not None:
        query = query.where(AuditEntry.happened_at >= since)
    if until is not None:
        query = query.where(AuditEntry.happened_at < until)
    if before is not None:
        query = query.where(AuditEntry.sequence < before)
    rows = session.execute(query)
    return [Entry(**row._asdict() | {"hash": row.hash.hex()}) for row in rows]


def verify(
    session: Session,
    *,
    noted: tuple[int, str] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Check every row against its hash and the row before it.

    Args:
        session: may read the log and the inbox.
        noted: the head of an earlier check.
        progress: called with the number of checked rows.
    """
    faults: list[Fault] = []
    rows, sequence, previous = 0, 0, GENESIS
    for row in _rows(session):
        rows += 1
        if row.sequence != sequence + 1:
            faults.append(_missing(sequence + 1, row.sequence - 1))
        elif row.previous_hash != previous:
            faults.append(
                Fault(
                    row.sequence,
                    f"row {row.sequence} does not continue row {sequence}: "
                    "one of them was replaced or moved",
                )
            )
        content = Content(**{name: getattr(row, name) for name in Content.__slots__})
        if link(row.previous_hash, content) != row.hash:
            faults.append(
                Fault(row.sequence, f"row {row.sequence} is not as it was written, or not where")
            )
        if noted is not None and noted[0] == row.sequence and noted[1] != row.hash.hex():
            text_ = f"row {row.sequence} has another hash than was noted: it was written anew"
            faults.append(Fault(row.sequence, text_))
        sequence, previous = row.sequence, row.hash
        if rows % CHUNK == 0:
            progress(rows)
    if noted is not None and noted[0] > sequence:
        faults.append(_missing(sequence + 1, noted[0]))
    faults += _lost(session)
    return Verdict(rows, (sequence, previous.hex()), tuple(faults))


def rows_of(entries: Sequence[Entry]) -> Sequence[str]:
    """Return which rows were shown, for the fact about the view."""
    if not entries:
        return ()
    return (f"{len(entries)} rows from {entries[-1].sequence} to {entries[0].sequence}",)


def write_csv(entries: Sequence[Entry], to: TextIO) -> None:
    """Write entries as CSV (RFC 4180), with a heading."""
    writer = csv.writer(to)
    writer.writerow(Entry.__slots__)
    for entry in entries:
        writer.writerow(_cell(name, getattr(entry, name)) for name in Entry.__slots__)


def _rows(session: Session) -> Iterator[AuditEntry]:
    query = select(AuditEntry).order_by(AuditEntry.sequence)
    for row in session.scalars(query.execution_options(yield_per=CHUNK)):
        yield row
        session.expunge(row)


def _missing(first: int, last: int) -> Fault:
    if last < first:
        return Fault(last + 1, f"row {last + 1} is there twice, or stands before the first")
    named = f"row {first} is" if first == last else f"rows {first} to {last} are"
    return Fault(first, f"{named} missing")


def _lost(session: Session) -> list[Fault]:
    """Return written facts without a row: the end of the log was cut off."""
    ids = session.scalars(
        text(
            "SELECT message_id FROM inbox WHERE consumer = :consumer AND NOT EXISTS"
            " (SELECT FROM audit_log WHERE event_id = message_id) ORDER BY message_id LIMIT :most"
        ),
        {"consumer": CONSUMER, "most": _LOST_SHOWN},
    )
    return [Fault(None, f"the fact {id_} was written down, and its row is missing") for id_ in ids]


def _cell(name: str, value: object) -> str:
    # A spreadsheet reads these prefixes as a formula, also after a separator, which in most of
    # Europe is the semicolon (OWASP, "CSV Injection").
    text_ = value.isoformat() if hasattr(value, "isoformat") else str(value)
    if name == "data":
        return text_.replace(";", "\\u003b")  # the same JSON
    guarded = re.sub(r"[;\t\r\n]", r"\g<0>'", text_)
    return f"'{guarded}" if text_.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else guarded
