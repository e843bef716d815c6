"""Finds orders by number, id, idempotency key or the customer's address."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from uuid import UUID

from kombu import Connection
from sqlalchemy import ColumnElement, String, and_, func, literal_column, or_, select
from sqlalchemy.orm import Session, aliased

from services.ops.dead_letters import search as dead_letters
from services.ops.timelines import pending, requests, unrecorded
from services.ops.timelines.requests import one_of
from shared.bus.contract import topology
from shared.bus.contract.events import OrderCreated
from shared.db.models import CONFLICT_EMAIL, Account, KycApplication, Order, OrderConflict
from shared.ids import is_id, normalised_number, order_of_key, order_of_number
from shared.validation.email_addresses import compared

AT_MOST = 100
SLICE = 2_000
"""Businesses whose order ids are derived in one step."""
NEVER = datetime.min.replace(tzinfo=UTC)
MOST_CONFLICTS = 1_000
"""Orders with a conflict of the same customer."""
SECONDS = 5.0
"""For the derivation of all; 200,000 businesses take longer."""
MOST_ASKED = 50_000
"""Ids in one query of the request log; planning one with more takes too long."""


@dataclass(frozen=True, slots=True)
class Found:
    """An order in a list.

    Attributes:
        order_number: the sender's number; empty if it has none, or is not recorded.
        order_id: its id.
        company_name: the business's.
        customer_email: the customer's.
        tracking_status: the current status; empty while it is not recorded.
        accepted_at: None if unknown.
    """

    order_number: str
    order_id: UUID
    company_name: str
    customer_email: str
    tracking_status: str
    accepted_at: datetime | None


class Results(list[Found]):
    """The found orders.

    Attributes:
        is_whole: whether the bus and the outbox were searched completely.
        are_all_requests: whether the request log was searched completely.
        are_all_businesses: whether a number or a key was searched at all businesses.
        is_of_all_days: false if only the last days of the request log were searched.
        looked_at: the time of the digest, if dead letters were searched in one.
        order_ids: the ids of orders that the text may name, with the business if known.
    """

    is_whole: bool = True
    are_all_requests: bool = True
    are_all_businesses: bool = True
    is_of_all_days: bool = True
    looked_at: datetime | None = None

    def __init__(self) -> None:
        super().__init__()
        self.order_ids: dict[UUID, UUID | None] = {}


def search(
    session: Session,
    text: str,
    *,
    account_id: UUID | None = None,
    connection: Connection | None = None,
    sees_persons: bool = True,
    seen_without: unrecorded.SeenWithout = unrecorded.search_all,
) -> Results:
    """Find the newest orders by number, id, idempotency key or the customer's address.

    Unrecorded ones come first. By address these are searched on the bus, since the request log
    keeps no bodies. It returns more than `AT_MOST` if there are more.

    Args:
        session: may read the orders and the request log.
        text: one of the four.
        account_id: limits the search to a business; None for all.
        connection: an open kombu connection, to search unrecorded orders by address.
        sees_persons: whether to search addresses and keys too: a match confirms them, and a key
            may contain an address.
        seen_without: returns whether a digest makes the search of dead letters unnecessary.
    """
    text = text.strip()
    is_address = sees_persons and "@" in text
    results = Results()
    recorded = _recorded(session, account_id, _indexed(session, text, is_address=is_address))
    lately: dict[UUID, requests.Request] = {}
    # A recorded order with this address or id needs no search for unrecorded ones.
    if not recorded or not (is_address or is_id(text)):
        order_ids = results.order_ids
        if is_id(text):
            order_ids[UUID(text)] = None
        until = time.monotonic() + SECONDS
        for number, derived in enumerate(_derived(session, text, account_id, by_key=sees_persons)):
            if number and time.monotonic() > until:
                results.are_all_businesses = False
                break
            recorded += _recorded(session, account_id, one_of(Order.id, derived.keys()))
            if len(order_ids) + len(derived) <= MOST_ASKED:
                order_ids |= derived
            else:
                results.are_all_requests = False
        key = text if sees_persons else None
        found, are_all = requests.accepted_lately(session, order_ids.keys(), key, account_id)
        results.is_of_all_days = account_id is not None
        results.are_all_requests &= are_all
        lately = {order.order_id: order for order in reversed(found) if order.order_id}
        known = {order.order_id for order in recorded}
        recorded += _recorded(session, account_id, one_of(Order.id, lately.keys() - known))
    for order in recorded:
        lately.pop(order.order_id, None)
    results += (
        Found("", id_, _company(session, request.account_id), "", "", request.at)
        for id_, request in lately.items()
    )
    if connection and is_address:
        waiting, is_whole, results.looked_at = unrecorded.by_email(
            session, connection, text, seen_without
        )
        results.is_whole &= is_whole
        results += (
            _waiting(session, order, at)
            for order, at in waiting
            if account_id in (None, order.account_id)
        )
    by_id = {order.order_id: order for order in recorded}
    results += nlargest(AT_MOST + 1, by_id.values(), key=lambda order: order.accepted_at or NEVER)
    return results


def waiting(
    session: Session,
    found: Results,
    connection: Connection,
    browse: pending.Browse = dead_letters.browse,
) -> None:
    """Add the unrecorded orders among `found.order_ids` that wait in the outbox or on the bus.

    Their age does not matter: a dead letter stays for months.

    Args:
        session: may read the outbox and accounts.
        found: the result of `search`.
        connection: an open kombu connection.
        browse: searches dead letters.
    """
    if not found.order_ids:
        return
    about = [str(id_) for id_ in found.order_ids]
    searched = pending.find(session, about, connection, browse, [topology.ORDERS_INTAKE])
    found.is_whole &= searched.is_whole
    found.looked_at = searched.looked_at
    known = {order.order_id for order in found}
    since = {UUID(message.about): message.since for message in searched.messages}
    for id_, at in since.items():
        if id_ not in known:
            sender = found.order_ids[id_]
            company = "" if sender is None else _company(session, sender)
            found.append(Found("", id_, company, "", "", at))


def _indexed(session: Session, text: str, *, is_address: bool) -> ColumnElement[bool]:
    """Return the condition on orders that indexes answer."""
    conditions = [Order.has_number_in_shop(normalised_number(text))]
    if is_id(text):
        conditions.append(Order.id == UUID(text))
    if is_address:
        theirs = compared(text)
        is_theirs = func.lower(Order.customer_email) == theirs
        is_for_them = literal_column(CONFLICT_EMAIL, String) == theirs
        conflicting = select(OrderConflict.order_id).where(is_for_them).limit(MOST_CONFLICTS)
        # By ids: with a subquery within the OR the database would read every order.
        is_in_conflict = one_of(Order.id, session.scalars(conflicting).all())
        conditions.append(and_(or_(is_theirs, is_in_conflict), Order.is_live))
    return or_(*conditions)


def _recorded(
    session: Session, account_id: UUID | None, condition: ColumnElement[bool]
) -> list[Found]:
    query = select(Order).where(condition)
    if account_id is not None:
        query = query.where(Order.account_id == account_id)
    # Joined after the limit: else the accounts of all matches would be read.
    newest = query.order_by(Order.accepted_at.desc()).limit(AT_MOST + 1).subquery()
    order = aliased(Order, newest)
    rows = session.execute(
        select(
            func.coalesce(order.order_number, ""),
            order.id,
            func.coalesce(Account.company_name, ""),
            order.customer_email,
            order.tracking_status,
            order.accepted_at,
        ).outerjoin(Account, Account.id == order.account_id)
    )
    return [Found(*row) for row in rows.all()]


def _waiting(session: Session, order: OrderCreated, at: datetime | None) -> Found:
    return Found(
        order.order_number or "",
        order.order_id,
        _company(session, order.account_id),
        order.customer_details.email,
        "",
        at,
    )


def _company(session: Session, account_id: UUID) -> str:
    return session.scalar(select(Account.company_name).where(Account.id == account_id)) or ""


def _derived(
    session: Session, text: str, account_id: UUID | None, *, by_key: bool
) -> Iterator[dict[UUID, UUID | None]]:
    """Yield the ids that a number or a key gives, with their senders, in slices of senders."""
    number = normalised_number(text)
    for senders in [[account_id]] if account_id else _senders(session):
        yield {
            id_: sender
            for sender in senders
            for is_test in (False, True)
            for id_ in (
                order_of_number(sender, number, is_test=is_test),
                *([order_of_key(sender, text, is_test=is_test)] if by_key else ()),
            )
        }


def _senders(session: Session) -> Iterator[Sequence[UUID]]:
    """Yield the businesses that were ever approved: no others have accepted orders."""
    of = KycApplication.account_id
    query = select(of).where(KycApplication.status.in_(("approved", "revoked"))).distinct()
    found = session.scalars(query.order_by(of).limit(SLICE)).all()
    while found:
        yield found
        found = session.scalars(query.where(of > found[-1]).order_by(of).limit(SLICE)).all()
