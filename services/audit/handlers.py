"""Appends rows to the audit log, serialised by an advisory lock."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from services.audit.parsing import Fact
from shared.bus.contract.message import Received
from shared.db.locking.advisory_locks import AUDIT_CHAIN
from shared.db.models import AuditEntry
from shared.ids import derived_id
from shared.security.audit_chain import GENESIS, Content, link


def write(session: Session, messages: Sequence[Received[Any]]) -> None:
    """Append a row for each fact that the log does not have yet.

    The inbox cannot tell: it forgets after a month, and a replay of the journal bypasses it. A
    different fact under a known id is appended too, under an id derived from its content.
    """
    # Held until the commit: the next transaction must see these rows to continue the chain.
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": AUDIT_CHAIN})
    content_ids = {id(message): _content_id(message) for message in messages}
    ids = [*(message.id for message in messages), *content_ids.values()]
    query = select(AuditEntry.event_id, AuditEntry.type, AuditEntry.data)
    known = {
        row.event_id: _about(row.type, row.data)
        for row in session.execute(query.where(AuditEntry.event_id.in_(ids)))
    }
    last = session.execute(
        select(AuditEntry.sequence, AuditEntry.hash).order_by(AuditEntry.sequence.desc()).limit(1)
    ).first()
    sequence, previous = (last.sequence, last.hash) if last else (0, GENESIS)
    rows = []
    for message in messages:
        subject, event_id = _about(message.type, message.data.data), message.id
        if known.get(event_id, subject) != subject:
            event_id = content_ids[id(message)]
        if event_id in known:
            continue
        known[event_id] = subject
        sequence += 1
        content = _content(sequence, event_id, message)
        hashed = link(previous, content)
        rows.append(_row(content) | {"previous_hash": previous, "hash": hashed})
        previous = hashed
    if rows:
        session.execute(insert(AuditEntry), rows)


def _about(type_: str, data: str) -> tuple[str, object]:
    """Return the type and the ids of a fact: other fields may differ if it is published again."""
    content = msgspec.json.decode(data)
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name.endswith("_id")}
    return type_, content


def _content_id(message: Received[Any]) -> UUID:
    return derived_id("fact", message.id, message.type, message.data.data)


def _content(sequence: int, event_id: UUID, message: Received[Any]) -> Content:
    fact: Fact = message.data
    return Content(
        sequence=sequence,
        event_id=event_id,
        type=message.type,
        happened_at=message.time,
        actor=fact.actor,
        address=fact.address,
        correlation_id=message.correlation_id,
        data=fact.data,
    )


def _row(content: Content) -> dict[str, Any]:
    return {name: getattr(content, name) for name in Content.__slots__}
