"""Which orders somebody means by a number, an id, an idempotency key or a customer's address."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from kombu import Connection
from sqlalchemy import ARRAY, ColumnElement, Uuid, and_, any_, cast, func, or_, select
from sqlalchemy.orm import Session

from services.ops.timelines import requests, unrecorded
from shared.bus.contract.events import OrderCreated
from shared.db.models import Account, KycApplication, Order, OrderConflict
from shared.ids import normalised_number, order_of_key, order_of_number
from shared.validation.email_addresses import compared

AT_MOST = 100


@dataclass(frozen=True, slots=True)
class Found:
    """An order, in one line of a list.

    Attributes:
        order_number: what its sender calls it; empty where it has none, or it is not recorded.
        order_id: which.
        company_name: whose.
        customer_email: for whom.
        tracking_status: where it is; empty while it is not recorded.
        accepted_at: since when; None where that is not known.
    """

    order_number: str
    order_id: UUID
    company_name: str
    customer_email: str
    tracking_status: str
    accepted_at: datetime | None


class Results(list[Found]):
    """What is found.

    Attributes:
        is_whole: false when not all that waits could be looked through.
        looked_at: when the dead letters were looked through, where that was before.
    """

    is_whole: bool = True
    looked_at: datetime | None = None


def search(
    session: Session,
    text: str,
    *,
    connection: Connection | None = None,
    sees_persons: bool = True,
    seen_without: unrecorded.SeenWithout = unrecorded.look_at_all,
) -> Results:
    """The newest orders that a number, id, idempotency key or customer's address stands for.

    Those that are accepted and not recorded come first. By address they are looked for on the bus,
    since the request log keeps no bodies. More than `AT_MOST` where there are more than that.

    Args:
        session: may read the orders and the request log.
        text: one of the four.
        connection: an open kombu connection, to look for what is not recorded by its address.
        sees_persons: else it is looked for as a number and an id alone: an address, and a key that
            a sender has made of one, would be confirmed to who may not see it.
        seen_without: whether dead letters need be looked through for an address.
    """
    text = text.strip()
    ids = _order_ids(session, text, by_key=sees_persons)
    conditions: list[ColumnElement[bool]] = [
        Order.id == any_(cast(list(ids), ARRAY(Uuid))),
        Order.has_number_in_shop(normalised_number(text)),
    ]
    is_address = sees_persons and "@" in text
    if is_address:
        theirs = compared(text)
        is_theirs = func.lower(Order.customer_email) == theirs
        conditions.append(and_(is_theirs, Order.is_live))
        address = OrderConflict.event["customer_details"]["email"].astext
        told = select(OrderConflict.order_id).where(func.lower(address) == theirs)
        # By their ids, not by a query among the conditions: the database would read every order.
        found = list(session.scalars(told))
        conditions.append(and_(Order.id == any_(cast(found, ARRAY(Uuid))), Order.is_live))
    rows = session.execute(
        select(
            func.coalesce(Order.order_number, ""),
            Order.id,
            func.coalesce(Account.company_name, ""),
            Order.customer_email,
            Order.tracking_status,
            Order.accepted_at,
        )
        .outerjoin(Account, Account.id == Order.account_id)
        .where(or_(*conditions))
        .order_by(Order.accepted_at.desc())
        .limit(AT_MOST + 1)
    )
    recorded = [Found(*row) for row in rows.all()]
    known = {found.order_id for found in recorded}
    asked = requests.accepted_lately(session, ids)
    if sees_persons:
        asked |= requests.orders_of_key(session, text)
    results = Results(_unrecorded(session, id_) for id_ in asked - known)
    if connection and is_address:
        waiting, results.is_whole, results.looked_at = unrecorded.by_email(
            session, connection, text, seen_without
        )
        results += (_waiting(session, *one) for one in waiting)
    results += recorded
    return results


def _unrecorded(session: Session, order_id: UUID) -> Found:
    first = requests.not_recorded(session, order_id)[0]
    return Found("", order_id, _company(session, first.account_id), "", "", first.at)


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


def _order_ids(session: Session, text: str, *, by_key: bool) -> set[UUID]:
    """The orders that an id is, or that a sender's order number or idempotency key became."""
    # Only who was approved ever had an order accepted.
    senders = session.scalars(
        select(KycApplication.account_id)
        .where(KycApplication.status.in_(("approved", "revoked")))
        .distinct()
    )
    number = normalised_number(text)
    ids = {
        id_
        for account_id in senders
        for is_test in (False, True)
        for id_ in (
            order_of_number(account_id, number, is_test=is_test),
            *([order_of_key(account_id, text, is_test=is_test)] if by_key else ()),
        )
    }
    with suppress(ValueError):
        ids.add(UUID(text))
    return ids
