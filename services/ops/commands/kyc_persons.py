"""Which operators have decided on an application that takes several, and who is still needed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ops.times import moment
from shared.db.models import KycApplication, KycDecision, OpsUser
from shared.security.service_accounts import CONSOLE, login

DECIDES = {"pending": "approve", "incomplete": "approve", "approved": "revoke"}
"""The decision that takes several persons, by the state of the application."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One person's decision that counts, and has not taken effect; see `kyc_decisions`."""

    decision: str
    person: str
    decided_by: str
    reason: str
    needed: int
    decided_at: datetime
    expires_at: datetime
    is_gone: bool = False
    """Whether it was decided on the console, by who is no user of it any more."""

    @property
    def by(self) -> str:
        """Whose it is, and whether there still is such a user."""
        return f"{self.decided_by}, no user any more" if self.is_gone else self.decided_by


_KEPT = [name for name in Recorded.__slots__ if name != "is_gone"]


def recorded(session: Session, applications: Collection[UUID]) -> Mapping[UUID, Sequence[Recorded]]:
    """What counts of the decisions on applications that are still open, the oldest first.

    Args:
        session: may read KYC applications and decisions.
        applications: their ids.
    """
    found: dict[UUID, list[Recorded]] = {}
    known = select(OpsUser.id).where(OpsUser.name == KycDecision.person)
    rows = session.execute(
        select(KycApplication.status, KycDecision, known.exists())
        .join(KycDecision, KycDecision.application_id == KycApplication.id)
        .where(KycApplication.id.in_(applications))
        .where(KycDecision.withdrawn_at.is_(None))
        .where(KycDecision.expires_at > func.clock_timestamp())
        .order_by(KycDecision.decided_at, KycDecision.person)
    )
    for status, row, is_user in rows:
        if DECIDES.get(status) == row.decision:
            values = {name: getattr(row, name) for name in _KEPT}
            # Who decided by their own user of the broker need be none of the console's.
            is_gone = not is_user and row.decided_by.endswith(f"({login(CONSOLE)})")
            one = Recorded(**values, is_gone=is_gone)
            found.setdefault(row.application_id, []).append(one)
    return found


def sentence(decided: Sequence[Recorded]) -> str:
    """Who has decided and who is still needed; empty where nobody has."""
    if not decided:
        return ""
    newest = max(decided, key=lambda one: one.decided_at)
    left = max(newest.needed - len(decided), 0)
    names = ", ".join(one.by for one in decided)
    first = min(one.expires_at for one in decided)
    more = "the next one decides" if left == 0 else f"{left} more of other names needed"
    return (
        f"{len(decided)} of {newest.needed} for {newest.decision}: {names}; {more}, "
        f"the first ends {moment(first)}"
    )
