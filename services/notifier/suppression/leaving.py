"""Customers leave a business, or one of its orders, and come back; by the link in an email."""

from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import erased
from shared.db.models import Account, EmailSender, Order, Suppression
from shared.security import tracking
from shared.security.unsubscribe_tokens import AddressHash, Leaver, unsubscribe_tokens

Scope = Literal["all", "order"]


class Standing(NamedTuple):
    """Where a customer stands with a business.

    Attributes:
        company_name: the business's.
        left: whether they have left it, or the order alone; None: neither.
        language: of its emails; empty: English.
        this_order_alone: whether who asks may know of one order, and that it was left.
    """

    company_name: str
    left: Scope | None
    language: str
    this_order_alone: bool = False


class _Known(NamedTuple):
    """Who a leaver is: by hashes, the first to be written down, and by address where that is known.

    It is not after an erasure.
    """

    hashes: list[AddressHash]
    address: str | None


def by_link(session: Session, link: tracking.Link) -> Leaver | None:
    """Whom an order's emails go to; None where the link was ended, or nobody is mailed about it."""
    order = session.get(Order, link.order_id)
    if order is None or order.tracking_link != link.number or order.is_test:
        return None
    if order.customer_email == erased.ADDRESS:
        return None
    hashed = unsubscribe_tokens().hashes(order.account_id, order.customer_email)[0]
    return Leaver(order.account_id, order.id, hashed)


def standing(session: Session, leaver: Leaver, *, this_order_alone: bool = False) -> Standing:
    """Where a customer stands.

    Args:
        session: the transaction.
        leaver: who.
        this_order_alone: say of one order what holds of all; whoever has its link is told.
    """
    name = session.scalar(select(Account.company_name).where(Account.id == leaver.account_id))
    scopes = session.scalars(
        select(Suppression.order_id).where(_is_theirs(leaver, _known(session, leaver)))
    ).all()
    left: Scope | None = None
    if scopes:
        left = "all" if None in scopes and not this_order_alone else "order"
    chosen = session.get(EmailSender, leaver.account_id)
    return Standing(name or "", left, chosen.language if chosen else "", this_order_alone)


def leave(session: Session, leaver: Leaver, scope: Scope) -> None:
    """Mail a customer no more; again changes nothing.

    Args:
        session: the transaction.
        leaver: who.
        scope: of which emails.
    """
    known = _known(session, leaver)
    hashed = known.hashes[0]
    session.execute(
        insert(Suppression)
        .values(
            account_id=leaver.account_id,
            cause="unsubscribed",
            order_id=leaver.order_id if scope == "order" else None,
            address_hash=hashed.value,
            key_id=hashed.key_id,
            address=known.address,
            by_order_id=leaver.order_id,
        )
        .on_conflict_do_nothing()
    )


def come_back(session: Session, leaver: Leaver) -> None:
    """Mail a customer again: of this order, and of the whole business."""
    session.execute(delete(Suppression).where(_is_theirs(leaver, _known(session, leaver))))


def _known(session: Session, leaver: Leaver) -> _Known:
    address = session.scalar(
        select(Order.customer_email).where(
            Order.id == leaver.order_id, Order.account_id == leaver.account_id
        )
    )
    if address is not None:
        hashes = unsubscribe_tokens().hashes(leaver.account_id, address)
        if leaver.hashed in hashes:
            return _Known(hashes, address)
    return _Known([leaver.hashed], None)


def _is_theirs(leaver: Leaver, known: _Known) -> ColumnElement[bool]:
    return (
        (Suppression.account_id == leaver.account_id)
        & (Suppression.cause == "unsubscribed")
        & Suppression.address_hash.in_([hashed.value for hashed in known.hashes])
        & (Suppression.order_id.is_(None) | (Suppression.order_id == leaver.order_id))
    )
