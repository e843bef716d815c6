"""Operators' actions on the messages of an order: replayed, edited, discarded."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.timelines.steps import Step
from shared.bus.contract.events import (
    OpsDeadLetterDiscarded,
    OpsDeadLetterReplayed,
    OpsOutboxChanged,
    decode,
)
from shared.db.models import AuditEntry

SERVICE = "services.ops"
_FACTS = (OpsDeadLetterDiscarded, OpsDeadLetterReplayed, OpsOutboxChanged)


@dataclass(frozen=True, slots=True)
class Mended:
    """The actions, by the audit log.

    Attributes:
        steps: one for each action on a message.
        gone: the ids of discarded messages, which will not be handled.
    """

    steps: Sequence[Step]
    gone: frozenset[str]


def of(session: Session, correlation_id: str) -> Mended:
    """Return the actions on the messages of an order or an account.

    Args:
        session: may read the audit log.
        correlation_id: of the order or account.
    """
    rows = session.scalars(
        select(AuditEntry)
        .where(
            AuditEntry.correlation_id == correlation_id,
            AuditEntry.type.in_([fact.TYPE for fact in _FACTS]),
        )
        .order_by(AuditEntry.sequence)
    )
    steps: list[Step] = []
    gone: set[str] = set()
    for row in rows:
        fact = decode(row.type, row.data.encode())
        if not isinstance(fact, _FACTS):
            continue
        done, reason = _done(fact)
        # A later replay undoes the discarding.
        (gone.add if done == "discarded" else gone.discard)(fact.message_id)
        words = f": {reason}" if reason else ""
        text = f"{fact.message_type} {done} by {row.actor}{words}"
        steps.append(Step(row.happened_at, "mended", text, SERVICE, None, True, reason))
    return Mended(steps, frozenset(gone))


def _done(
    fact: OpsDeadLetterDiscarded | OpsDeadLetterReplayed | OpsOutboxChanged,
) -> tuple[str, str]:
    """Return a name of the action, and its reason."""
    if isinstance(fact, OpsDeadLetterDiscarded):
        return "discarded", fact.reason
    if isinstance(fact, OpsDeadLetterReplayed):
        return ("edited and put back" if fact.edited else "put back"), ""
    return {"retried": "tried again", "edited": "edited", "discarded": "discarded"}[
        fact.action
    ], fact.reason
