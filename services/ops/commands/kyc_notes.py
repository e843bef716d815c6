"""Operators' notes on KYC applications, which the business never sees."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session, aliased

from services.ops.audit.actions import Actor, about
from services.ops.commands.kyc_applications import Application
from shared.bus import outbox
from shared.bus.contract.events import LONGEST_TEXT, OpsKycNoteAdded
from shared.db.models import KycApplication, KycNote
from shared.ids import new_id


class InvalidNoteError(ValueError):
    """The note cannot be stored; the message says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """A note; see the table `kyc_notes`.

    Attributes:
        written_by: the operator's name.
        note: the text.
        written_at: when it was written.
        earlier: when the note's application was submitted, if it is an earlier one; else None.
    """

    written_by: str
    note: str
    written_at: datetime
    earlier: datetime | None = None


def checked(note: str) -> str:
    """Return a note as it is stored.

    Raises:
        InvalidNoteError: it is empty, too long, or contains a NUL.
    """
    note = note.replace("\r\n", "\n").strip()
    if not note:
        raise InvalidNoteError("The note is empty.")
    if len(note) > LONGEST_TEXT or "\0" in note:
        raise InvalidNoteError(f"A note may have up to {LONGEST_TEXT:,} characters, without NUL.")
    return note


def add(session: Session, actor: Actor, application: Application, note: str) -> UUID:
    """Store a note and its audit fact in one transaction; returns the note's id.

    Args:
        session: may write notes and to the outbox.
        actor: the author.
        application: the application.
        note: the text, from `checked`.
    """
    id_ = new_id()
    session.add(KycNote(id=id_, application_id=application.id, written_by=actor.name, note=note))
    fact = OpsKycNoteAdded(
        **actor.fields,
        account_id=application.account_id,
        application_id=application.id,
        note_id=id_,
        digest=hashlib.sha256(note.encode()).hexdigest(),
    )
    outbox.add(session, [about(fact, application.account_id)])
    return id_


def notes(session: Session, applications: Collection[UUID]) -> Mapping[UUID, Sequence[Note]]:
    """Return the notes on applications and on their businesses' earlier ones, oldest first.

    Args:
        session: may read notes and applications.
        applications: the applications' ids.
    """
    found: dict[UUID, list[Note]] = {}
    shown, other = aliased(KycApplication), aliased(KycApplication)
    rows = session.execute(
        select(shown.id, other.id, other.submitted_at, KycNote)
        .select_from(shown)
        .join(other, other.account_id == shown.account_id)
        .join(KycNote, KycNote.application_id == other.id)
        .where(shown.id.in_(applications))
        .where(tuple_(other.submitted_at, other.id) <= tuple_(shown.submitted_at, shown.id))
        .order_by(KycNote.written_at, KycNote.id)
    )
    for id_, of, sent_at, row in rows:
        earlier = None if of == id_ else sent_at
        kept = Note(row.written_by, row.note, row.written_at, earlier)
        found.setdefault(id_, []).append(kept)
    return found
