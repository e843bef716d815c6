"""What waits for a decision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from services.ops.commands.kyc_persons import Recorded, recorded, sentence
from shared.db.models import Account, KycApplication
from shared.synthetic import LIKE


class Status(StrEnum):
    """Where an application is."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Application:
    """An application and whose it is; see the tables `accounts` and `kyc_applications`."""

    id: UUID
    account_id: UUID
    company_name: str
    email: str
    business_registration_number: str
    business_address: str
    contact_person_details: str
    status: str
    reason: str
    submitted_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    recorded: Sequence[Recorded] = ()

    @property
    def so_far(self) -> str:
        """Who has decided and who is still needed, in words."""
        return sentence(self.recorded)


_COLUMNS = (
    KycApplication.id,
    Account.id,
    Account.company_name,
    Account.email,
    KycApplication.business_registration_number,
    KycApplication.business_address,
    KycApplication.contact_person_details,
    KycApplication.status,
    KycApplication.reason,
    KycApplication.submitted_at,
    KycApplication.decided_at,
    KycApplication.decided_by,
)


def applications(
    session: Session, status: Status, *, limit: int = 100, newest_first: bool = False
) -> Sequence[Application]:
    """Applications in a state, oldest first.

    Args:
        session: may read accounts and KYC applications.
        status: which.
        limit: how many at most.
        newest_first: by decision, for what is looked up afterwards.
    """
    order = (
        (KycApplication.decided_at.desc(), KycApplication.id.desc())
        if newest_first
        else (KycApplication.submitted_at, KycApplication.id)
    )
    rows = session.execute(
        select(*_COLUMNS)
        .join(Account, Account.id == KycApplication.account_id)
        .where(KycApplication.status == status.value)
        # The standing proof's business is there to be decided on, and among nobody's afterwards.
        .where(or_(KycApplication.status == Status.PENDING.value, Account.email.not_like(LIKE)))
        .order_by(*order)
        .limit(limit)
    )
    found = [Application(*tuple(row)) for row in rows]
    by = recorded(session, [application.id for application in found])
    return [replace(application, recorded=by.get(application.id, ())) for application in found]


def newest(session: Session, account_id: UUID) -> Application | None:
    """The application of a business that a decision is about; None when it has none.

    Args:
        session: may read accounts and KYC applications.
        account_id: which business.
    """
    row = session.execute(
        select(*_COLUMNS)
        .join(Account, Account.id == KycApplication.account_id)
        .where(KycApplication.account_id == account_id)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
    ).first()
    if row is None:
        return None
    found = Application(*tuple(row))
    return replace(found, recorded=recorded(session, [found.id]).get(found.id, ()))
