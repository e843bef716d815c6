"""Adding rows to the audit log, one after the other whoever adds them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from services.audit.parsing import Fact
from shared.bus.contract.message import Received
from shared.db.locking.advisory_locks import AUDIT_CHAIN
from shared.db.models import AuditEntry
from shared.security.audit_chain import GENESIS, Content, link


def write(session: Session, messages: Sequence[Received[Any]]) -> None:
    """Add a row for each fact that has none yet.

    The inbox forgets after a month, and a replay of the journal passes it by; a row stays known.
    """
    # Kept until the commit: who comes next must see these rows to continue them.
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": AUDIT_CHAIN})
    ids = [message.id for message in messages]
    known = set(
        session.scalars(select(AuditEntry.event_id).where(AuditEntry.event_id.in_(ids))).all()
    )
    last = session.execute(
        select(AuditEntry.sequence, AuditEntry.hash).order_by(AuditEntry.sequence.desc()).limit(1)
    ).first()
    sequence, previous = (last.sequence, last.hash) if last else (0, GENESIS)
    rows = []
    for message in messages:
        if message.id in known:
            continue
        sequence += 1
        content = _content(sequence, message)
        hashed = link(previous, content)
        rows.append(_row(content) | {"previous_hash": previous, "hash": hashed})
        previous = hashed
    if rows:
        session.execute(insert(AuditEntry), rows)


def _content(sequence: int, message: Received[Any]) -> Content:
    fact: Fact = message.data
    return Content(
        sequence=sequence,
        event_id=message.id,
        type=message.type,
        happened_at=message.time,
        actor=fact.actor,
        address=fact.address,
        correlation_id=message.correlation_id,
        data=fact.data,
    )


def _row(content: Content) -> dict[str, Any]:
    return {name: getattr(content, name) for name in Content.__slots__}
