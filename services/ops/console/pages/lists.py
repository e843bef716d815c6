"""Lists: a business's webhook requests and orders, and emails by state."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from sqlalchemy.orm import Session

from services.ops.console.web.page import Page, Visit
from services.ops.console.web.reading import number
from services.ops.timelines import lists
from services.ops.timelines.lists import Place
from services.ops.users.rights import Right
from shared.bus.contract.events import TrackingStatus
from shared.db.models import Account
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, View

AT_ONCE = 100
OUTCOMES = {"": "Accepted and refused", "accepted": "Accepted", "refused": "Refused"}
STATES = {
    "undeliverable": "Undeliverable",
    "suppressed": "Suppressed",
    "unsubscribed": "Unsubscribed",
    "sent": "Sent",
    "": "All",
}
_EPOCH = datetime.fromtimestamp(0, UTC)


def show_requests(session: Session, visit: Visit) -> Result:
    """Show a page of a business's webhook requests."""
    account = _account(session, visit)
    outcome = visit.query.get("outcome", "")
    code = visit.query.get("code", "").strip()[:64]
    found = lists.requests(
        session,
        account.id,
        code=code,
        is_accepted=None if outcome not in ("accepted", "refused") else outcome == "accepted",
        before=_place(visit.query.get("before", "")),
        limit=AT_ONCE,
    )
    about = {
        "requests": found,
        "outcome": outcome,
        "outcomes": OUTCOMES,
        "code": code,
        "is_later": "before" in visit.query,
        "next": _query(outcome=outcome, code=code, before=_written((found.end[0], found.end[1])))
        if found.end
        else "",
    }
    return _of(account, "requests.html", about)


def show_orders(session: Session, visit: Visit) -> Result:
    """Show a page of a business's orders."""
    account = _account(session, visit)
    status = visit.query.get("status", "")
    found = lists.orders(session, account.id, status=status, after=_after(visit), limit=AT_ONCE)
    about = {
        "orders": found,
        "status": status,
        "is_later": "after" in visit.query,
        "statuses": [status.value for status in TrackingStatus],
        "next": _query(status=status, after=found.end[1]) if found.end else "",
    }
    return _of(account, "orders.html", about)


def show_emails(session: Session, visit: Visit) -> Result:
    """Show a page of emails, by default the undeliverable ones."""
    state = visit.query.get("state", "undeliverable")
    if state not in STATES:
        raise PageError(404, f"No email is {state}.")
    found = lists.emails(session, state=state, after=_after(visit), limit=AT_ONCE)
    about = {
        "path": "/emails",
        "emails": found,
        "state": state,
        "is_later": "after" in visit.query,
        "states": STATES,
        "next": _query(state=state, after=found.end[1]) if found.end else "",
    }
    return View("emails.html", about, of=sorted({email.subject_id for email in found}))


def _account(session: Session, visit: Visit) -> Account:
    account = session.get(Account, uuid_of(visit.path["account_id"]))
    if account is None:
        raise PageError(404, f"There is no business {visit.path['account_id']}.")
    return account


def _of(account: Account, template: str, about: Mapping[str, Any]) -> View:
    named = {"account_id": account.id, "company_name": account.company_name}
    return View(template, {**about, **named}, of=[str(account.id)])


def _query(**given: object) -> str:
    return urlencode({name: str(value) for name, value in given.items() if value != ""})


def _after(visit: Visit) -> UUID | None:
    return uuid_of(visit.query["after"]) if visit.query.get("after") else None


def _written(place: Place) -> str:
    return f"{(place[0] - _EPOCH) // timedelta(microseconds=1)}.{place[1]}"


def _place(text: str) -> Place | None:
    micros, _, row = text.partition(".")
    since, id_ = number(micros), number(row)
    if since is None or id_ is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=since), id_
    except OverflowError:
        return None


PAGES = (
    Page(
        "GET",
        "/accounts/{account_id}/requests",
        "watch",
        show_requests,
        plain=[Right.CUSTOMERS],
    ),
    Page("GET", "/accounts/{account_id}/orders", "watch", show_orders, plain=[Right.CUSTOMERS]),
    Page("GET", "/emails", "watch", show_emails, plain=[Right.CUSTOMERS]),
)
