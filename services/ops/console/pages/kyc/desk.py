"""The KYC desk: lists of applications, and decisions on them."""

import json
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from sqlalchemy.orm import Session

from services.ops.audit.actions import address_fault
from services.ops.commands import decisions, kyc_applications, kyc_notes
from services.ops.commands.giving import give
from services.ops.commands.kyc_applications import Application, Filter, Same, Sort, Status
from services.ops.commands.kyc_persons import DECIDES
from services.ops.console.web.following import follow
from services.ops.console.web.page import Page, Visit
from services.ops.users.rights import Right
from shared.bus.contract.events import KycDecide
from shared.db.models import Account, InboxEntry
from shared.db.session import engine
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Question, Redirect, View

AT_ONCE = 50
MOST_WORDS = 320  # letters: the longest email address
SORTS = {
    Sort.OLDEST: "submitted, oldest first",
    Sort.NEWEST: "submitted, newest first",
    Sort.DECIDED: "decided, newest first",
    Sort.COMPANY: "by company",
}
CONSEQUENCES = {
    "approve": ("Approve", "It is told, and gets a webhook secret: its orders are accepted."),
    "ask": ("Ask", "It is told the question, and can send its application again."),
    "reject": ("Reject", "It is told the reason, and may submit again."),
    "revoke": ("Revoke", "It is told, and its webhook secrets stop working immediately."),
}
"""The name of each decision, and a sentence about its effect."""


def show(session: Session, visit: Visit) -> Result:
    """Show a page of the matching applications of one state."""
    wanted, after = filter_of(visit.query, sees_persons=visit.user.may(Right.KYC))
    decided = _decided(visit)
    # Read before the list: a decision that commits in between is then one not carried out.
    awaits_it = decided is not None and not _is_carried_out(session, decided)
    found = kyc_applications.applications(session, wanted, limit=AT_ONCE + 1, after=after)
    same = kyc_applications.same_number(session, found)
    kept = kyc_notes.notes(session, [row.id for row in found])
    rows = list(found[:AT_ONCE])
    if decided and awaits_it:
        # Its state may still be the old one; another decision on it would be a mistake.
        before = decided["application_id"], decided["looked_at"]
        rows = [row for row in rows if (row.id, row.state) != before]
    about = {
        "path": "/kyc",
        "wanted": wanted,
        "sorts": SORTS,
        "counts": kyc_applications.counts(session, wanted),
        "applications": [
            (
                row,
                contact(row.contact_person_details),
                same.get(row.id, Same()),
                kept.get(row.id, ()),
            )
            for row in rows
        ],
        "after": after,
        "address": address_of,
        "next": found[AT_ONCE - 1].id if len(found) > AT_ONCE else None,
        "takes": visit.system.config.kyc_approvals_required if wanted.status in DECIDES else 1,
        "decides": DECIDES.get(wanted.status, ""),
        "decided": decided,
        "is_one_hidden": len(rows) < len(found[:AT_ONCE]),
        "focus": _following(session, wanted, decided, rows),
    }
    return View("kyc.html", about, of=[str(row.account_id) for row in rows])


def filter_of(given: Mapping[str, str], *, sees_persons: bool = True) -> tuple[Filter, UUID | None]:
    """Read the filter, and the application to start after, from a query string or a form."""
    try:
        status = Status(given.get("status") or Status.PENDING)
    except ValueError:
        raise PageError(404, "There are no such applications.") from None
    usual = Sort.OLDEST if status is Status.PENDING else Sort.DECIDED
    sort = Sort(given["sort"]) if given.get("sort", "") in SORTS else usual
    words = given.get("words", "").strip()[:MOST_WORDS]
    after = uuid_of(given["after"]) if given.get("after") else None
    return Filter(status, words, sort, names_only=not sees_persons), after


def address_of(
    wanted: Filter, after: UUID | None = None, more: Mapping[str, object] | None = None
) -> str:
    """Return the address of the page that shows them."""
    given: dict[str, object] = {
        "status": wanted.status,
        "words": wanted.words,
        "sort": wanted.sort,
        "after": after,
    }
    query = {name: str(value) for name, value in (given | dict(more or {})).items() if value}
    return f"/kyc?{urlencode(query)}"


def _back(visit: Visit, command: KycDecide, more: Mapping[str, object] | None = None) -> str:
    """Return the address of the list that the form came from."""
    listed = {name: visit.field(name) for name in ("status", "words", "sort", "after")}
    listed["status"] = listed["status"] or ("approved" if command.decision == "revoke" else "")
    return address_of(*filter_of(listed), more)


def _following(
    session: Session, wanted: Filter, decided: Mapping[str, Any] | None, shown: list[Application]
) -> UUID | None:
    """Return the application to focus after a decision."""
    if decided is None or not shown:
        return None
    ids = [row.id for row in shown]
    if decided["application_id"] is None:
        return ids[0]
    after = kyc_applications.applications(session, wanted, limit=1, after=decided["application_id"])
    return after[0].id if after and after[0].id in ids else ids[0]


def contact(stored: str) -> Mapping[str, str] | str:
    """Return contact details as the business wrote them: a text, or named parts."""
    try:
        given = json.loads(stored)
    except ValueError:
        return stored
    if isinstance(given, dict):
        return {str(name): _words(value) for name, value in given.items()}
    return _words(given)


def ask(session: Session, visit: Visit) -> Question:
    """Ask before a decision, naming it and the business."""
    command = _command(session, visit)
    application = kyc_applications.newest(session, uuid_of(visit.path["account_id"]))
    if application is None:
        raise PageError(404, "This business has not applied.")
    if command.application_id not in (None, application.id):
        raise PageError(409, "The business has sent another application since: look at that one.")
    if command.looked_at not in (None, application.state):
        by = f", decided by {application.decided_by}" if application.decided_by else ""
        raise PageError(409, f"It is {application.status} meanwhile{by}: look at it again.")
    same = kyc_applications.same_number(session, [application]).get(application.id, Same())
    does, follows = CONSEQUENCES[command.decision]
    if command.decision == "approve" and application.status == "approved":
        does, follows = "Take back the revocation of", "Those of other operators stay."
    return Question(
        f"{does} {application.company_name}?",
        f"{does} {application.company_name}",
        _back(visit, command),
        facts={
            "Business": application.company_name,
            "Email": application.email,
            "Registration number": application.business_registration_number,
            "The same number": same.in_words,
            "Address": application.business_address,
            "Its application is": application.status,
            "So far": application.so_far,
            "Reason": command.reason,
        },
        more=follows,
        is_danger=command.decision != "approve",
    )


def decide(session: Session, visit: Visit) -> Result:
    """Publish a decision; the page then shows its outcome."""
    command = _command(session, visit)
    with visit.system.broker(session, gives=True) as connection:
        message_id = give(connection, engine(), command, visit.actor, person=visit.user.name)
    decided = {"decided": message_id, "account": command.account_id}
    seen = {"application": command.application_id, "looked_at": command.looked_at}
    return Redirect(_back(visit, command, {**decided, **seen}))


def outcome(session: Session, visit: Visit) -> Result:
    """Return the outcome of a decision as a fragment that polls until it is known."""
    command = KycDecide(decision="approve", account_id=uuid_of(visit.query.get("account", "")))
    return follow(session, visit, decisions.recipient(command), command.account_id)


def _command(session: Session, visit: Visit) -> KycDecide:
    account_id, decision = uuid_of(visit.path["account_id"]), visit.field("decision")
    reason = visit.field("reason")
    if decision not in get_args(decisions.Decision):
        raise PageError(400, "A decision is approve, reject, revoke or ask.")
    if decision in decisions.REASONED and not reason:
        raise PageError(400, "A reason is needed: the business is told it.")
    if decision == "approve" and reason:
        raise PageError(400, "An approval has no reason: was this to be a rejection?")
    business = session.get(Account, account_id)
    if wrong := address_fault(reason, business.email if business else ""):
        raise PageError(400, f"The reason {wrong}.")
    try:
        looked_at = visit.field("application_id")
        return decisions.make(
            decision,  # type: ignore[arg-type]
            str(account_id),
            reason,
            uuid_of(looked_at) if looked_at else None,
            visit.field("looked_at") or None,
        )
    except msgspec.ValidationError:
        raise PageError(400, "The reason may have up to 4,000 characters, without NUL.") from None


def _decided(visit: Visit) -> Mapping[str, Any] | None:
    if not visit.query.get("decided"):
        return None
    return {
        "message_id": uuid_of(visit.query["decided"]),
        "account_id": uuid_of(visit.query.get("account", "")),
        "application_id": uuid_of(visit.query["application"])
        if visit.query.get("application")
        else None,
        "looked_at": visit.query.get("looked_at", ""),
    }


def _is_carried_out(session: Session, decided: Mapping[str, Any]) -> bool:
    consumer = decisions.recipient(KycDecide(decision="approve")).consumer
    return session.get(InboxEntry, (consumer, decided["message_id"])) is not None


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(_words(part) for part in value)
    return json.dumps(value, ensure_ascii=False)


PAGES = (
    Page("GET", "/kyc", "watch", show, plain=[Right.KYC]),
    Page("POST", "/kyc/{account_id}", Right.KYC, decide, asks=ask, plain=[Right.KYC]),
    Page("GET", "/kyc/outcomes/{message_id}", "watch", outcome, asks_by_itself=True),
)
