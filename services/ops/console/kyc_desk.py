"""The KYC desk: applications with their facts, and decisions on them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ops import decisions
from services.ops.console.page import Page, PageError, Redirect, Result, View, Visit
from services.ops.console.reading import positive, uuid_of
from shared.bus.events import KycDecide
from shared.db.models import Account, KycApplication
from shared.db.session import engine

STATES = ("pending", "approved", "rejected", "revoked")
AT_ONCE = 50
LETTERS_EVERY = 3  # looks into the books for one into the dead letters, which costs more
GIVE_UP_AFTER = 60  # looks, one a second


@dataclass(frozen=True, slots=True)
class Application:
    """One application, as the desk shows it."""

    account_id: UUID
    company_name: str
    email: str
    number: str
    address: str
    contact: Mapping[str, str] | str
    status: str
    reason: str
    submitted_at: datetime
    decided_at: datetime | None
    decided_by: str | None


def show(session: Session, visit: Visit) -> Result:
    """Applications of one state: those that wait oldest first, the others newest first."""
    status = visit.query.get("status", "pending")
    if status not in STATES:
        raise PageError(404, "There are no such applications.")
    counts = dict.fromkeys(STATES, 0) | _counts(session)
    return View(
        "kyc.html",
        {
            "path": "/kyc",
            "status": status,
            "counts": counts,
            "applications": applications(session, status),
            "at_once": AT_ONCE,
            "decided": _decided(visit),
        },
    )


def applications(session: Session, status: str) -> Sequence[Application]:
    """The first `AT_ONCE` of a state."""
    order = (
        (KycApplication.submitted_at, KycApplication.id)
        if status == "pending"
        else (KycApplication.decided_at.desc(), KycApplication.id.desc())
    )
    rows = session.execute(
        select(KycApplication, Account.company_name, Account.email)
        .join(Account, Account.id == KycApplication.account_id)
        .where(KycApplication.status == status)
        .order_by(*order)
        .limit(AT_ONCE)
    )
    return [
        Application(
            account_id=row.account_id,
            company_name=company_name,
            email=email,
            number=row.business_registration_number,
            address=row.business_address,
            contact=contact(row.contact_person_details),
            status=row.status,
            reason=row.reason,
            submitted_at=row.submitted_at,
            decided_at=row.decided_at,
            decided_by=row.decided_by,
        )
        for row, company_name, email in rows
    ]


def contact(stored: str) -> Mapping[str, str] | str:
    """Contact details as the business gave them: words, or named parts."""
    try:
        given = json.loads(stored)
    except ValueError:
        return stored
    if isinstance(given, dict):
        return {str(name): _words(value) for name, value in given.items()}
    return _words(given)


def decide(_: Session, visit: Visit) -> Result:
    """Publish a decision; what becomes of it is shown when it is known."""
    account_id, decision = uuid_of(visit.path["account_id"]), visit.field("decision")
    reason = visit.field("reason")
    if decision not in get_args(decisions.Decision):
        raise PageError(400, "A decision is approve, reject or revoke.")
    if decision == "reject" and not reason:
        raise PageError(400, "A rejection needs a reason: the business is told it.")
    try:
        command = decisions.make(decision, str(account_id), reason)  # type: ignore[arg-type]
    except msgspec.ValidationError:
        raise PageError(400, "The reason may have up to 4,000 characters, without NUL.") from None
    with visit.system.broker() as connection:
        message_id = decisions.publish(connection, command, visit.user.name)
    back = visit.field("status") if visit.field("status") in STATES else "pending"
    return Redirect(
        f"/kyc?status={back}&decided={message_id}&account={account_id}&decision={decision}"
    )


def outcome(_: Session, visit: Visit) -> Result:
    """What has become of a decision: a piece of a page, which asks again until it is known."""
    command = KycDecide(decision="approve", account_id=uuid_of(visit.query.get("account", "")))
    message_id = uuid_of(visit.path["message_id"])
    looks = positive(visit.query.get("look", ""))
    if looks % LETTERS_EVERY == LETTERS_EVERY - 1:
        with visit.system.broker() as connection:
            found = decisions.look(engine(), message_id, command, connection)
    else:
        found = decisions.look(engine(), message_id, command)
    about = {
        "outcome": found,
        "message_id": message_id,
        "account_id": command.account_id,
        "look": looks + 1,
        "is_given_up": looks >= GIVE_UP_AFTER,
    }
    return View("kyc_outcome.html", about)


def _decided(visit: Visit) -> Mapping[str, Any] | None:
    if not visit.query.get("decided"):
        return None
    return {
        "message_id": uuid_of(visit.query["decided"]),
        "account_id": uuid_of(visit.query.get("account", "")),
    }


def _counts(session: Session) -> dict[str, int]:
    rows = session.execute(
        select(KycApplication.status, func.count()).group_by(KycApplication.status)
    )
    return {row[0]: row[1] for row in rows}


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(_words(part) for part in value)
    return json.dumps(value, ensure_ascii=False)


PAGES = (
    Page("GET", "/kyc", "watch", show),
    Page("POST", "/kyc/{account_id}", "act", decide),
    Page("GET", "/kyc/outcomes/{message_id}", "watch", outcome),
)
