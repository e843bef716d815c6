"""Pages of one order and of one business, and the search for them."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.broker.hold import BusyError
from services.ops.console.pages.kyc.desk import contact
from services.ops.console.web.page import Page, Visit
from services.ops.journal.reading import NotReadToTheEndError
from services.ops.timelines import account, search
from services.ops.timelines import order as trail
from services.ops.users.rights import Right
from shared.db.models import Account
from shared.ids import is_id
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Redirect, View

EVERYWHERE = "everywhere"
"""The query parameter that searches the bus too."""
_Trail = TypeVar("_Trail")
FIND_SECONDS = 15.0
"""A number is searched at every business, an address on the bus too."""
LONGEST = 320
"""The longest email address; a key has at most 255 characters."""
BUSINESSES = 20
"""How many of the found ones are shown."""


def find(session: Session, visit: Visit) -> Result:
    """Find orders and businesses by an id, a key, an address, a number or a name.

    An address, a registration number and a key need the right to see personal data.
    """
    text = visit.query.get("q", "").strip()
    if len(text) > LONGEST:
        raise PageError(400, f"Nothing has a name of more than {LONGEST} characters.")
    of_account = visit.query.get("account", "")
    account_id = uuid_of(of_account) if of_account else None
    sees_persons = visit.user.may(Right.CUSTOMERS)
    is_global = text and account_id is None
    accounts = account.find(session, text, sees_persons=sees_persons) if is_global else []
    is_named = bool(accounts) or is_id(text)
    orders = _orders(session, visit, text, account_id, is_named=is_named)
    if len(orders) == 1 and not accounts:
        return Redirect(f"/orders/{orders[0].order_id}")
    if len(accounts) == 1 and not orders:
        return Redirect(f"/accounts/{accounts[0]}")
    if not orders and not accounts and is_id(text):
        # Not recorded yet, or never: requests, the outbox or dead letters may know of it.
        return Redirect(f"/orders/{quote(text)}")
    businesses = account.lines(session, accounts[:BUSINESSES])
    about = {
        "text": text,
        "of": _company(session, account_id),
        "found": orders,
        "orders": orders[: search.AT_MOST],
        "are_more_orders": len(orders) > search.AT_MOST,
        "businesses": businesses,
        "are_more_businesses": len(accounts) > BUSINESSES,
        "sees_persons": sees_persons,
    }
    of = [
        *(str(order.order_id) for order in orders[: search.AT_MOST]),
        *(str(one.account_id) for one in businesses),
    ]
    return View("find.html", about, of=of)


def _orders(
    session: Session, visit: Visit, text: str, account_id: UUID | None, *, is_named: bool
) -> search.Results:
    """Find orders; in the outbox and on the bus too if nothing else is found."""
    if not text:
        return search.Results()
    sees_persons = visit.user.may(Right.CUSTOMERS)
    read = partial(search.search, session, text, account_id=account_id, sees_persons=sees_persons)
    is_address = sees_persons and "@" in text
    found = search.Results() if is_address else read()
    if not is_address and (found or is_named):
        return found
    digests = visit.system.digests
    try:
        with visit.system.broker(session) as connection:
            if is_address:
                return read(connection=connection, seen_without=digests.seen_without)
            search.waiting(session, found, connection, digests.browse)
    except (PageError, NotReadToTheEndError):
        found = read() if is_address else found
        found.is_whole = False
    return found


def _company(session: Session, account_id: UUID | None) -> str:
    """Return the name of the business that the search is limited to; empty for all."""
    if account_id is None:
        return ""
    return session.scalar(select(Account.company_name).where(Account.id == account_id)) or ""


def show_order(session: Session, visit: Visit) -> Result:
    """Show one order."""
    order_id = uuid_of(visit.path["order_id"])
    read = partial(trail.order_trail, session, order_id)
    found, about = _find_trail(session, visit, read, may_wait_unknown=True)
    if found is None:
        raise PageError(404, f"No order {order_id} is known.")
    return View("order.html", {"order": found} | about)


def show_account(session: Session, visit: Visit) -> Result:
    """Show one business."""
    account_id = uuid_of(visit.path["account_id"])
    read = partial(account.account_trail, session, account_id)
    found, about = _find_trail(session, visit, read)
    if found is None:
        raise PageError(404, f"There is no business {account_id}.")
    contacts = [contact(application.contact_person_details) for application in found.applications]
    commanded = visit.query.get("commanded")
    about |= {
        "account": found,
        "contacts": contacts,
        "commanded": uuid_of(commanded) if commanded else None,
    }
    return View("account.html", about)


def _find_trail(
    session: Session,
    visit: Visit,
    read: Callable[..., _Trail | None],
    *,
    may_wait_unknown: bool = False,
) -> tuple[_Trail | None, dict[str, Any]]:
    """Read a trail; from the bus too, if that is wanted or the database has nothing.

    Reading the bus fetches the messages of every queue and returns them, which takes a while.
    """
    about: dict[str, Any] = {
        "everywhere": f"{visit.asked_for}?{EVERYWHERE}=yes",
        "looked": False,
        "silence": "",
    }
    is_wanted = EVERYWHERE in visit.query
    found = None if is_wanted else _from_database(read)
    if found is not None or not (is_wanted or may_wait_unknown):
        return found, about
    try:
        with visit.system.broker(session) as connection:
            found = read(connection=connection, browse=visit.system.digests.browse)
            return found, about | {"looked": True}
    except PageError as error:
        found = _from_database(read)
        if found is None:
            raise
        return found, about | {"silence": error.sentence}


def _from_database(read: Callable[..., _Trail | None]) -> _Trail | None:
    """Read a trail from the database; None also if that was incomplete: the bus may have it."""
    try:
        return read()
    except BusyError:
        return None


PAGES = (
    Page("GET", "/find", "watch", find, plain=[Right.CUSTOMERS], seconds=FIND_SECONDS),
    Page("GET", "/orders/{order_id}", "watch", show_order, plain=[Right.CUSTOMERS]),
    Page(
        "GET",
        "/accounts/{account_id}",
        "watch",
        show_account,
        plain=[Right.KYC, Right.CUSTOMERS],
    ),
)
