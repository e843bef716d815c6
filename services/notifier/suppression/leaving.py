"""Customers unsubscribe from a business or an order, and subscribe again, by an email's link."""

from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import erased
from shared.db.models import Account, EmailSender, Order, Suppression
from shared.security import tracking
from shared.security.unsubscribe_tokens import AddressHash, Subscriber, unsubscribe_tokens

Scope = Literal["all", "order"]


class Standing(NamedTuple):
    """A customer's subscription to a business's emails.

    Attributes:
        company_name: the business's name.
        left: the scope the customer has unsubscribed from; None for none.
        language: the language of the business's emails; empty for English.
        this_order_alone: whether the requester may see the state of one order only.
    """

    company_name: str
    left: Scope | None
    language: str
    this_order_alone: bool = False


class _Known(NamedTuple):
    """A customer's address hashes, the first for new rows, and the address; None once erased."""

    hashes: list[AddressHash]
    address: str | None


def by_link(session: Session, link: tracking.Link) -> Subscriber | None:
    """Return the customer of an order's link; None if the link was ended or nobody is mailed."""
    order = session.get(Order, link.order_id)
    if order is None or order.tracking_link != link.number or order.is_test:
        return None
    if order.customer_email == erased.ADDRESS:
        return None
    hashed = unsubscribe_tokens().hashes(order.account_id, order.customer_email)[0]
    return Subscriber(order.account_id, order.id, hashed)


def standing(session: Session, leaver: Subscriber, *, this_order_alone: bool = False) -> Standing:
    """Return a customer's subscription.

    Args:
        session: the transaction.
        leaver: the customer.
        this_order_alone: whether to report "all" as "order", for a requester with an order's link.
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


def leave(session: Session, leaver: Subscriber, scope: Scope) -> None:
    """Unsubscribe a customer; idempotent.

    Args:
        session: the transaction.
        leaver: the customer.
        scope: from all emails of the business, or from those about the order.
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


def come_back(session: Session, leaver: Subscriber) -> None:
    """Subscribe a customer again, to this order and to the business."""
    session.execute(delete(Suppression).where(_is_theirs(leaver, _known(session, leaver))))


def _known(session: Session, leaver: Subscriber) -> _Known:
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


def _is_theirs(leaver: Subscriber, known: _Known) -> ColumnElement[bool]:
    return (
        (Suppression.account_id == leaver.account_id)
        & (Suppression.cause == "unsubscribed")
        & Suppression.address_hash.in_([hashed.value for hashed in known.hashes])
        & (Suppression.order_id.is_(None) | (Suppression.order_id == leaver.order_id))
    )
