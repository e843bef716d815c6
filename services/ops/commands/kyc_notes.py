"""Operators' notes on an application: for each other, and never told to the business."""

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
from shared.bus.contract.events import OpsKycNoteAdded
from shared.db.models import KycApplication, KycNote
from shared.ids import new_id

LONGEST = 4_000  # characters


class InvalidNoteError(ValueError):
    """It cannot be kept; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Note:
    """One of them; see the table `kyc_notes`.

    Attributes:
        written_by: by whom.
        note: its words.
        written_at: when.
        earlier: when the earlier application was sent that it is on; None where it is on this one.
    """

    written_by: str
    note: str
    written_at: datetime
    earlier: datetime | None = None


def checked(note: str) -> str:
    """A note as it is kept.

    Raises:
        InvalidNoteError: it is empty, too long, or cannot be stored.
    """
    note = note.replace("\r\n", "\n").strip()
    if not note:
        raise InvalidNoteError("The note is empty.")
    if len(note) > LONGEST or "\0" in note:
        raise InvalidNoteError(f"A note may have up to {LONGEST:,} characters, without NUL.")
    return note


def add(session: Session, actor: Actor, application: Application, note: str) -> UUID:
    """Keep a note, and tell the audit log in the same transaction; returns its id.

    Args:
        session: may write notes and to the outbox.
        actor: who writes it.
        application: what it is about.
        note: from `checked`.
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
    """The notes on applications, and on those that their businesses sent before; the oldest first.

    Args:
        session: may read notes and applications.
        applications: their ids.
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
