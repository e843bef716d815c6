"""What happened to an order, and to a business; and finding them."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy.orm import Session

from services.ops.console.pages.kyc.desk import contact
from services.ops.console.web.page import Page, Visit
from services.ops.journal.reading import NotReadToTheEndError
from services.ops.timelines import account, search
from services.ops.timelines import order as trail
from services.ops.users.rights import Right
from shared.ids import is_id
from shared.web.forms import uuid_of
from shared.web.mount import Result
from shared.web.results import PageError, Redirect, View

EVERYWHERE = "everywhere"
"""The parameter by which a trail is looked for on the bus, too."""
_Trail = TypeVar("_Trail")
FIND_SECONDS = 15.0
"""By an address every order is looked at."""
BUSINESSES = 20
"""So many are shown of those that are found."""


def find(session: Session, visit: Visit) -> Result:
    """Orders and businesses that an id, a key, an address, a number or a name stands for.

    By an address, a registration number and a key only for who may see whose they are.
    """
    text = visit.query.get("q", "").strip()[:200]
    sees_persons = visit.user.may(Right.CUSTOMERS)
    orders = _orders(session, visit, text) if text else search.Results()
    accounts = account.find(session, text, sees_persons=sees_persons) if text else []
    if len(orders) == 1 and not accounts:
        return Redirect(f"/orders/{orders[0].order_id}")
    if len(accounts) == 1 and not orders:
        return Redirect(f"/accounts/{accounts[0]}")
    if text and not orders and not accounts and is_id(text):
        # Not recorded yet, or never: requests, the outbox or dead letters may know of it.
        return Redirect(f"/orders/{quote(text)}")
    businesses = account.lines(session, accounts[:BUSINESSES])
    about = {
        "text": text,
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


def _orders(session: Session, visit: Visit, text: str) -> search.Results:
    if not visit.user.may(Right.CUSTOMERS):
        return search.search(session, text, sees_persons=False)
    if "@" not in text:
        return search.search(session, text)
    try:
        with visit.system.broker(session) as connection:
            return search.search(
                session, text, connection=connection, seen_without=visit.system.digests.seen_without
            )
    except (PageError, NotReadToTheEndError):
        found = search.search(session, text)
        found.is_whole = False
        return found


def show_order(session: Session, visit: Visit) -> Result:
    """One order, on one screen."""
    order_id = uuid_of(visit.path["order_id"])
    look = partial(trail.order_trail, session, order_id)
    found, about = _looked_for(session, visit, look, may_wait_unknown=True)
    if found is None:
        raise PageError(404, f"Nobody knows of an order {order_id}.")
    return View("order.html", {"order": found} | about)


def show_account(session: Session, visit: Visit) -> Result:
    """One business, on one screen."""
    account_id = uuid_of(visit.path["account_id"])
    look = partial(account.account_trail, session, account_id)
    found, about = _looked_for(session, visit, look)
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


def _looked_for(
    session: Session,
    visit: Visit,
    look: Callable[..., _Trail | None],
    *,
    may_wait_unknown: bool = False,
) -> tuple[_Trail | None, dict[str, Any]]:
    """A trail, and how far it was looked for; with the bus, where that is wanted or all there is.

    What is on the bus is fetched from every queue and given back, which takes a while.
    """
    about: dict[str, Any] = {
        "everywhere": f"{visit.asked_for}?{EVERYWHERE}=yes",
        "looked": False,
        "silence": "",
    }
    is_wanted = EVERYWHERE in visit.query
    found = None if is_wanted else look()
    if found is not None or not (is_wanted or may_wait_unknown):
        return found, about
    try:
        with visit.system.broker(session) as connection:
            found = look(connection=connection, browse=visit.system.digests.browse)
            return found, about | {"looked": True}
    except PageError as error:
        found = look()
        if found is None:
            raise
        # The books tell the rest.
        return found, about | {"silence": error.sentence}


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
