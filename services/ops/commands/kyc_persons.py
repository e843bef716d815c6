"""Decisions that need several operators: who has decided, and how many are missing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ops.times import moment
from shared.db.models import KycApplication, KycDecision

DECIDES = {"pending": "approve", "incomplete": "approve", "approved": "revoke"}
"""The decision that needs several operators, by the application's state."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One operator's decision that has not taken effect yet; see `kyc_decisions`."""

    decision: str
    person: str
    decided_by: str
    reason: str
    needed: int
    decided_at: datetime
    expires_at: datetime
    is_gone: bool = False
    """Whether its operator is no longer a console user, so that it does not count."""

    @property
    def by(self) -> str:
        """The operator's name, and whether the user was removed."""
        return f"{self.decided_by}, no user any more" if self.is_gone else self.decided_by


_KEPT = [name for name in Recorded.__slots__ if name != "is_gone"]


def recorded(session: Session, applications: Collection[UUID]) -> Mapping[UUID, Sequence[Recorded]]:
    """Return the open decisions on applications, oldest first.

    Args:
        session: may read KYC applications and decisions.
        applications: the applications' ids.
    """
    found: dict[UUID, list[Recorded]] = {}
    rows = session.execute(
        select(KycApplication.status, KycDecision, KycDecision.is_of_removed_user())
        .join(KycDecision, KycDecision.application_id == KycApplication.id)
        .where(KycApplication.id.in_(applications))
        .where(KycDecision.withdrawn_at.is_(None))
        .where(KycDecision.expires_at > func.clock_timestamp())
        .order_by(KycDecision.decided_at, KycDecision.person)
    )
    for status, row, is_gone in rows:
        if DECIDES.get(status) == row.decision:
            values = {name: getattr(row, name) for name in _KEPT}
            one = Recorded(**values, is_gone=is_gone)
            found.setdefault(row.application_id, []).append(one)
    return found


def sentence(decided: Sequence[Recorded]) -> str:
    """Describe who has decided and how many are missing; empty if there is no decision."""
    if not decided:
        return ""
    newest = max(decided, key=lambda one: one.decided_at)
    counted = [one for one in decided if not one.is_gone]
    left = max(newest.needed - len(counted), 0)
    names = ", ".join(one.by for one in decided)
    first = min(one.expires_at for one in decided)
    more = "the next one decides" if left == 0 else f"{left} more of other names needed"
    return (
        f"{len(counted)} of {newest.needed} for {newest.decision}: {names}; {more}, "
        f"the first ends {moment(first)}"
    )
