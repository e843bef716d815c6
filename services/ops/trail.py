"""What happened to an order: from the request to the last email, and what still waits."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from kombu import Connection
from sqlalchemy import ARRAY, ColumnElement, Engine, Uuid, any_, cast, func, or_, select
from sqlalchemy.orm import Session

from services.ops import requests, waiting
from services.ops.waiting import Waiting
from shared.bus.events import OrderCancellationRecorded, OrderRecorded, OrderStatusRecorded
from shared.db.models import (
    Account,
    EmailDelivery,
    InboxEntry,
    KycApplication,
    Order,
    OrderStatusHistory,
)
from shared.ids import derived_id, follow_up_id

NOTIFIER = "services.notifier"
AT_MOST = 100


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened.

    Attributes:
        at: when; by the clock of whoever did it. A fact that was handled without an email has the
            time of what it tells of.
        what: the kind of step, in the order of an order's life.
        text: in words.
        service: who did it.
        event_id: the message behind it: the sender's for a status, the fact's for an email.
        counts: false for what changed nothing, such as a status that came too late.
    """

    at: datetime
    what: Literal["request", "accepted", "recorded", "status", "email", "told"]
    text: str
    service: str
    event_id: UUID | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """An order, in one line of a list.

    Attributes:
        order_id: which.
        company_name: whose.
        customer_email: for whom.
        tracking_status: where it is.
        accepted_at: since when.
    """

    order_id: UUID
    company_name: str
    customer_email: str
    tracking_status: str
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class OrderTrail:
    """Everything known of one order.

    Attributes:
        order_id: which.
        account_id: whose; None for an order that is not recorded and of which no request is known.
        company_name: their name.
        customer_name: for whom; empty while it is not recorded, as all of the following.
        customer_email: their address.
        item_summary: what.
        tracking_status: where it is.
        steps: what happened, oldest first.
        waiting: what still waits; None when the bus was not looked at.
    """

    order_id: UUID
    account_id: UUID | None
    company_name: str
    customer_name: str
    customer_email: str
    item_summary: str
    tracking_status: str
    steps: tuple[Step, ...]
    waiting: tuple[Waiting, ...] | None

    @property
    def is_recorded(self) -> bool:
        """Whether the order is in the books."""
        return bool(self.tracking_status)


def search(session: Session, text: str) -> Sequence[Found]:
    """The newest orders that an order id, idempotency key or customer's address stands for.

    Args:
        session: may read the orders.
        text: one of the three.
    """
    text = text.strip()
    conditions: list[ColumnElement[bool]] = [
        Order.id == any_(cast(list(_order_ids(session, text)), ARRAY(Uuid)))
    ]
    if "@" in text:
        # No index, as it would cost every order for what is asked a few times a day.
        conditions.append(func.lower(Order.customer_email) == text.lower())
    rows = session.execute(
        select(
            Order.id,
            func.coalesce(Account.company_name, ""),
            Order.customer_email,
            Order.tracking_status,
            Order.accepted_at,
        )
        .outerjoin(Account, Account.id == Order.account_id)
        .where(or_(*conditions))
        .order_by(Order.accepted_at.desc())
        .limit(AT_MOST)
    )
    return [Found(*row) for row in rows.all()]


def order_trail(
    session: Session,
    order_id: UUID,
    *,
    connection: Connection | None = None,
    engine: Engine | None = None,
) -> OrderTrail | None:
    """The trail of one order; None when nothing at all is known of it.

    Args:
        session: may read what services.orders and services.notifier write.
        order_id: which.
        connection: an open kombu connection, to look for what waits on the bus.
        engine: see `dead_letters.browse`.
    """
    order = session.get(Order, order_id)
    sent = requests.by_events(session, _said(session, order_id))
    steps = [_request(request) for request in sent]
    account_id = sent[0].account_id if sent else None
    if order is not None:
        account_id = order.account_id
        steps += _life(session, order)
    found = waiting.in_outbox(session, str(order_id))
    if connection is not None:
        found += waiting.on_the_bus(connection, str(order_id), engine=engine)
    if not steps and not found:
        return None
    company = select(Account.company_name).where(Account.id == account_id)
    return OrderTrail(
        order_id=order_id,
        account_id=account_id,
        company_name=session.scalar(company) or "",
        customer_name=order.customer_name if order else "",
        customer_email=order.customer_email if order else "",
        item_summary=order.item_summary if order else "",
        tracking_status=order.tracking_status if order else "",
        steps=tuple(sorted(steps, key=lambda step: step.at)),
        waiting=None if connection is None and not found else tuple(found),
    )


def _order_ids(session: Session, text: str) -> set[UUID]:
    """The orders that an id is, or that a sender's idempotency key became."""
    # An order's id is derived from its account and key (services/ingress/event_bodies.py), and only
    # who was approved ever had an order accepted.
    senders = session.scalars(
        select(KycApplication.account_id)
        .where(KycApplication.status.in_(("approved", "revoked")))
        .distinct()
    )
    ids = {derived_id("order", account_id, text) for account_id in senders}
    with suppress(ValueError):
        ids.add(UUID(text))
    return ids


def _said(session: Session, order_id: UUID) -> set[UUID]:
    """The messages about an order. The first has the order's own id, unless a key was given."""
    history = select(OrderStatusHistory.event_id).where(OrderStatusHistory.order_id == order_id)
    return {order_id, *session.scalars(history)}


def _request(request: requests.Request) -> Step:
    key = f", key {request.idempotency_key}" if request.idempotency_key else ""
    return Step(
        request.at,
        "request",
        f"{request.event_type or 'a request'} from {request.address}: {request.code}{key}",
        "services.ingress",
        request.event_id,
        request.accepted,
    )


def _life(session: Session, order: Order) -> list[Step]:
    """Accepted, recorded, each status, each email."""
    steps = [
        Step(order.accepted_at, "accepted", "taken over from the sender", "services.ingress"),
        Step(order.recorded_at, "recorded", "in the books", "services.orders", order.id),
    ]
    history = session.scalars(
        select(OrderStatusHistory)
        .where(OrderStatusHistory.order_id == order.id)
        .order_by(OrderStatusHistory.at)
    ).all()
    facts = {follow_up_id(order.id, OrderRecorded.TYPE): (order.recorded_at, "the order itself")}
    for said in history:
        note = f": {said.note}" if said.note else ""
        late = "" if said.applied else ", does not count"
        steps.append(
            Step(
                said.at,
                "status",
                f"{said.tracking_status}{note}{late}",
                "services.orders",
                said.event_id,
                said.applied,
            )
        )
        for type_ in (OrderStatusRecorded.TYPE, OrderCancellationRecorded.TYPE):
            facts[follow_up_id(said.event_id, type_)] = (said.at, said.tracking_status)
    return steps + _emails(session, order.id, facts)


def _emails(
    session: Session, order_id: UUID, facts: dict[UUID, tuple[datetime, str]]
) -> list[Step]:
    emails = session.scalars(
        select(EmailDelivery)
        .where(EmailDelivery.subject_id == str(order_id))
        .order_by(EmailDelivery.at)
    ).all()
    steps = [
        Step(
            email.at,
            "email",
            f"{email.template} to {email.recipient}: {email.state}"
            + (f" ({email.response})" if email.response else ""),
            NOTIFIER,
            email.fact_id,
            email.state == "sent",
        )
        for email in emails
    ]
    mailed = {email.fact_id for email in emails}
    handled = session.scalars(
        select(InboxEntry.message_id).where(
            InboxEntry.consumer == NOTIFIER, InboxEntry.message_id.in_(facts.keys() - mailed)
        )
    )
    return steps + [
        Step(facts[id_][0], "told", f"{facts[id_][1]}: no email was due", NOTIFIER, id_)
        for id_ in handled
    ]
