"""An operator's decision on an application: whom it is about, and how the business stands after."""

from functools import partial
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops.commands.kyc_applications import Application, newest_where
from services.ops.commands.outcomes import Recipient
from shared.bus.contract import topology
from shared.bus.contract.events import KycDecide
from shared.db.models import Account, KycApplication
from shared.ids import is_id

Decision = Literal["approve", "reject", "revoke", "ask"]
REASONED = ("reject", "ask")
"""What the business is told nothing by without a reason."""


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
    if is_id(business):
        name = "account_id"
    else:
        name = "email" if "@" in business else "business_registration_number"
    given = {"decision": decision, name: business, "reason": reason}
    seen = {"application_id": application_id, "looked_at": looked_at}
    return msgspec.convert(given | seen, KycDecide)


def recipient(command: KycDecide) -> Recipient:
    """Who carries a decision out, and how the business stands then."""
    return Recipient(topology.KYC_DECISIONS, "services.kyc", partial(_standing, command))


def meant(engine: Engine, command: KycDecide) -> Application | None:
    """The application that is meant, looked up before anything is published; None: nobody's.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    if command.account_id is not None:
        is_named = Account.id == command.account_id
    elif command.email is not None:
        is_named = Account.email == command.email.lower()
    else:
        number = command.business_registration_number
        is_named = KycApplication.business_registration_number == number
    with Session(engine) as session:
        return newest_where(session, is_named)


def _standing(command: KycDecide, engine: Engine) -> str:
    """Where the business stands now, in words."""
    found = meant(engine, command)
    if found is None:
        return "Done."
    by = f", decided by {found.decided_by}" if found.decided_by else ""
    stands = f"{found.company_name} ({found.email}) is {found.status}{by}."
    return f"{stands} Recorded: {found.so_far}." if found.so_far else stands
