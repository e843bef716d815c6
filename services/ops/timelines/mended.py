"""What operators did with the messages about an order: put back, mended, thrown away."""

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
    """What was done, by the audit log.

    Attributes:
        steps: one for each message that something was done with.
        gone: the ids of the messages that were thrown away: nobody will handle them any more.
    """

    steps: Sequence[Step]
    gone: frozenset[str]


def of(session: Session, correlation_id: str) -> Mended:
    """What was done with the messages about an order or an account.

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
        # What was put back after all is not gone any more.
        (gone.add if done == "discarded" else gone.discard)(fact.message_id)
        words = f": {reason}" if reason else ""
        text = f"{fact.message_type} {done} by {row.actor}{words}"
        steps.append(Step(row.happened_at, "mended", text, SERVICE, None, True, reason))
    return Mended(steps, frozenset(gone))


def _done(
    fact: OpsDeadLetterDiscarded | OpsDeadLetterReplayed | OpsOutboxChanged,
) -> tuple[str, str]:
    """What was done, in words, and why."""
    if isinstance(fact, OpsDeadLetterDiscarded):
        return "discarded", fact.reason
    if isinstance(fact, OpsDeadLetterReplayed):
        return ("edited and put back" if fact.edited else "put back"), ""
    return {"retried": "tried again", "edited": "edited", "discarded": "discarded"}[
        fact.action
    ], fact.reason
