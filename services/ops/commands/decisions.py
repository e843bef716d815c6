"""Decisions on KYC applications: making the command, and describing the business's state after."""

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
"""The decisions that need a reason."""


def make(
    decision: Decision,
    business: str,
    reason: str,
    application_id: UUID | None = None,
    looked_at: str | None = None,
) -> KycDecide:
    """Return the command for a decision.

    Args:
        decision: the decision.
        business: an account id, an email address or a registration number.
        reason: the reason that the business is given.
        application_id: the application that the operator saw; the command applies to no other.
        looked_at: the state that the operator saw; the command applies in no other.

    Raises:
        msgspec.ValidationError: a value is invalid.
    """
    business = business.strip()
    if is_id(business):
        name = "account_id"
    else:
        name = "email" if "@" in business else "business_registration_number"
    fields = {"decision": decision, name: business, "reason": reason}
    seen = {"application_id": application_id, "looked_at": looked_at}
    return msgspec.convert(fields | seen, KycDecide)


def recipient(command: KycDecide) -> Recipient:
    """Return the consumer that carries out a decision."""
    return Recipient(topology.KYC_DECISIONS, "services.kyc", partial(_state_of, command))


def find_application(engine: Engine, command: KycDecide) -> Application | None:
    """Return the application that a command is about; None if there is none.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unreachable.
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


def _state_of(command: KycDecide, engine: Engine) -> str:
    """Describe the business's current state."""
    found = find_application(engine, command)
    if found is None:
        return "Done."
    by = f", decided by {found.decided_by}" if found.decided_by else ""
    address = "" if found.closed_at else f" ({found.email})"
    state = f"{found.company_name}{address} is {found.status}{by}."
    return f"{state} Recorded: {found.so_far}." if found.so_far else state
