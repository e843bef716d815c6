"""An operator's decision on an application: whom it is about, and how the business stands after."""

from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from services.ops.commands.kyc_persons import recorded, sentence
from services.ops.commands.outcomes import Recipient
from shared.bus.contract import topology
from shared.bus.contract.events import KycDecide
from shared.db.models import Account, KycApplication, kyc_state

Decision = Literal["approve", "reject", "revoke", "ask"]
REASONED = ("reject", "ask")
"""What the business is told nothing by without a reason."""


class Meant(NamedTuple):
    """The newest application of a business, and whose it is."""

    id: UUID
    company_name: str
    email: str
    business_registration_number: str
    status: str
    decided_by: str | None
    account_id: UUID
    decided_at: datetime | None

    @property
    def state(self) -> str:
        """As of `KycDecide.looked_at`."""
        return kyc_state(self.status, self.decided_at)


def make(
    decision: Decision,
    business: str,
    reason: str,
    application_id: UUID | None = None,
    looked_at: str | None = None,
) -> KycDecide:
    """The command.

    Args:
        decision: what to do.
        business: an account id, an email address or a registration number.
        reason: what the business is told.
        application_id: the application that was looked at; another one is not decided on.
        looked_at: how that stood; it is not decided on when it stands otherwise.

    Raises:
        msgspec.ValidationError: one of them has not the form it must have.
    """
    business = business.strip()
    if _is_id(business):
        name = "account_id"
    else:
        name = "email" if "@" in business else "business_registration_number"
    given = {"decision": decision, name: business, "reason": reason}
    seen = {"application_id": application_id, "looked_at": looked_at}
    return msgspec.convert(given | seen, KycDecide)


def recipient(command: KycDecide) -> Recipient:
    """Who carries a decision out, and how the business stands then."""
    return Recipient(topology.KYC_DECISIONS, "services.kyc", partial(_standing, command))


def meant(engine: Engine, command: KycDecide) -> Meant | None:
    """The application that is meant, looked up before anything is published; None: nobody's.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    newest = (
        select(
            KycApplication.id,
            Account.company_name,
            Account.email,
            KycApplication.business_registration_number,
            KycApplication.status,
            KycApplication.decided_by,
            Account.id,
            KycApplication.decided_at,
        )
        .join(Account, KycApplication.account_id == Account.id)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
    )
    if command.account_id is not None:
        newest = newest.where(Account.id == command.account_id)
    elif command.email is not None:
        newest = newest.where(Account.email == command.email.lower())
    else:
        number = command.business_registration_number
        newest = newest.where(KycApplication.business_registration_number == number)
    with engine.connect() as connection:
        row = connection.execute(newest).first()
    return None if row is None else Meant(*row)


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _standing(command: KycDecide, engine: Engine) -> str:
    """Where the business stands now, in words."""
    found = meant(engine, command)
    if found is None:
        return "Done."
    with Session(engine) as session:
        so_far = sentence(recorded(session, [found.id]).get(found.id, ()))
    by = f", decided by {found.decided_by}" if found.decided_by else ""
    stands = f"{found.company_name} ({found.email}) is {found.status}{by}."
    return f"{stands} Recorded: {so_far}." if so_far else stands
