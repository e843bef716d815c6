"""What happened to an order: from the request to the last email, and what still waits."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from kombu import Connection
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.broker.hold import NOT_WHOLE, BusyError
from services.ops.dead_letters import search
from services.ops.timelines import emails, mended, pending, requests
from services.ops.timelines.pending import Waiting
from services.ops.timelines.steps import Step
from shared.bus.contract.events import CREATED
from shared.db.models import (
    Account,
    Order,
    OrderConflict,
    OrderStatusHistory,
    Suppression,
    WaitingUpdate,
)
from shared.http.listing import latest

PARCEL = ("carrier", "tracking_number", "tracking_url", "estimated_delivery")


@dataclass(frozen=True, slots=True)
class OrderTrail:
    """Everything known of one order.

    Attributes:
        order_number: what its sender calls it; empty where that is not known.
        order_id: which.
        account_id: whose; None for an order that is not recorded and of which no request is known.
        company_name: their name.
        customer_name: for whom; empty while it is not recorded, as all of the following.
        customer_email: their address.
        item_summary: what.
        tracking_status: where it is.
        metadata: what its sender said beside it.
        parcel: where it can be followed, and when it should be there; by field.
        steps: what happened, oldest first.
        waiting: what still waits; None when the bus was not looked at.
        is_test: whether it is a test order, which was mailed to its business alone.
        is_whole: false when not all could be looked at; see `pending.Pending`.
        looked_at: see `pending.Pending`.
        is_cut: whether there are older states or emails, which are left out.
    """

    order_number: str
    order_id: UUID
    account_id: UUID | None
    company_name: str
    customer_name: str
    customer_email: str
    item_summary: str
    tracking_status: str
    metadata: Mapping[str, str]
    parcel: Mapping[str, str]
    steps: tuple[Step, ...]
    waiting: tuple[Waiting, ...] | None
    is_test: bool = False
    is_whole: bool = True
    looked_at: datetime | None = None
    is_cut: bool = False

    @property
    def is_recorded(self) -> bool:
        """Whether the order is in the books."""
        return bool(self.tracking_status)


def order_trail(
    session: Session,
    order_id: UUID,
    *,
    connection: Connection | None = None,
    browse: pending.Browse = search.browse,
) -> OrderTrail | None:
    """The trail of one order; None when nothing at all is known of it.

    Args:
        session: may read what services.orders and services.notifier write.
        order_id: which.
        connection: an open kombu connection, to look for what waits on the bus.
        browse: looks through dead letters there.

    Raises:
        BusyError: nothing is known of it, and not all could be looked at.
    """
    order = session.get(Order, order_id)
    history: Sequence[OrderStatusHistory] = ()
    is_all = True
    if order is None:
        sent = requests.not_recorded(session, order_id)
    else:
        history, is_all = _history(session, order_id)
        sent = requests.by_events(session, _said(session, order_id, history))
    done = mended.of(session, str(order_id))
    steps = [*(_request(request) for request in sent), *done.steps]
    account_id = sent[0].account_id if sent else None
    looked = pending.find(session, str(order_id), connection, browse)
    found = looked.messages
    if order is not None:
        account_id = order.account_id
        steps += _life(order, history)
        steps += _conflicts(session, order_id)
        mailed, are_all = emails.steps(session, order, history, found, done.gone)
        steps += mailed
        is_all = is_all and are_all
        steps += _no_more_emails(session, order_id)
    elif any(_is_awaited(request, done.gone) for request in sent):
        steps.append(_not_recorded(sent, found))
    if not steps and not found:
        if not looked.is_whole:
            raise BusyError(NOT_WHOLE)
        return None
    company = select(Account.company_name).where(Account.id == account_id)
    return OrderTrail(
        order_number=(order.order_number if order else _number_awaited(session, sent)) or "",
        order_id=order_id,
        account_id=account_id,
        company_name=session.scalar(company) or "",
        customer_name=order.customer_name if order else "",
        customer_email=order.customer_email if order else "",
        item_summary=order.item_summary if order else "",
        tracking_status=order.tracking_status if order else "",
        metadata=(order.sent_metadata or {}) if order else {},
        parcel=(order.tracking or {}) if order else {},
        steps=tuple(sorted(steps, key=lambda step: step.at)),
        waiting=None if connection is None and not found else tuple(found),
        is_whole=looked.is_whole,
        looked_at=looked.looked_at,
        is_test=order is not None and order.is_test,
        is_cut=not is_all,
    )


def _number_awaited(session: Session, sent: Sequence[requests.Request]) -> str | None:
    """The number by which updates name an order that is not there."""
    events = [request.event_id for request in sent if request.event_id]
    return session.scalar(
        select(WaitingUpdate.order_number)
        .where(WaitingUpdate.event_id.in_(events), WaitingUpdate.order_number.is_not(None))
        .limit(1)
    )


def _history(session: Session, order_id: UUID) -> tuple[Sequence[OrderStatusHistory], bool]:
    said = select(OrderStatusHistory).where(OrderStatusHistory.order_id == order_id)
    return latest(session, said, OrderStatusHistory.at, OrderStatusHistory.event_id)


def _said(session: Session, order_id: UUID, history: Sequence[OrderStatusHistory]) -> set[UUID]:
    """The messages about an order. The first has the order's own id, unless a key was given."""
    conflicts = select(OrderConflict.event_id).where(
        OrderConflict.order_id == order_id, OrderConflict.event.is_not(None)
    )
    return {order_id, *(said.event_id for said in history), *session.scalars(conflicts)}


def _request(request: requests.Request) -> Step:
    key = f", key {request.idempotency_key}" if request.idempotency_key else ""
    who = f"{request.address}{key}"
    return Step(
        request.at,
        "request",
        f"{request.event_type or 'a request'}: {request.code}, from {who}",
        "services.ingress",
        request.event_id,
        request.accepted,
        who,
    )


def _is_awaited(request: requests.Request, gone: Collection[str]) -> bool:
    """Whether an order is to be recorded by what was sent, unless somebody threw that away."""
    is_created = request.accepted and request.event_type in CREATED
    return is_created and str(request.event_id) not in gone


def _not_recorded(sent: Sequence[requests.Request], found: Sequence[Waiting]) -> Step:
    """That an accepted order is to be recorded, and where it is as far as that is known."""
    places = {message.place for message in found}
    where = f"it waits in {', '.join(sorted(places))}" if places else "it waits for the recorder"
    at = min(request.at for request in sent if request.accepted)
    return Step(at, "due", f"accepted, not recorded yet: {where}", "services.orders")


def _life(order: Order, history: Sequence[OrderStatusHistory]) -> list[Step]:
    """Accepted, recorded, each status."""
    return [
        Step(order.accepted_at, "accepted", "taken over from the sender", "services.ingress"),
        Step(order.recorded_at, "recorded", "in the books", "services.orders", order.id),
        *(
            Step(
                said.at,
                "status",
                said.tracking_status
                + (f": {words}" if words else "")
                + ("" if said.applied else ", does not count"),
                "services.orders",
                said.event_id,
                said.applied,
                words,
            )
            for said in history
            for words in ["; ".join(filter(None, (said.note, in_words(said.tracking or {}))))]
        ),
    ]


def _conflicts(session: Session, order_id: UUID) -> list[Step]:
    """Other orders that came under the same number or key, and changed nothing."""
    rows = session.scalars(
        select(OrderConflict).where(
            OrderConflict.order_id == order_id, OrderConflict.event.is_not(None)
        )
    )
    return [
        Step(
            row.at,
            "conflict",
            f"another order under the same {_name(row.event)}, which is not recorded: {said}",
            "services.orders",
            row.event_id,
            False,
            said,
        )
        for row in rows
        if row.event
        for said in [_in_words(row.event)]
    ]


def in_words(parcel: Mapping[str, str]) -> str:
    """Where a parcel can be followed, in one line."""
    return ", ".join(parcel[field] for field in PARCEL if field in parcel)


def _name(event: Mapping[str, Any]) -> str:
    return "number" if event.get("order_number") else "key"


def _no_more_emails(session: Session, order_id: UUID) -> list[Step]:
    """That the customer has left by an email about this order, or its address was refused."""
    rows = session.scalars(select(Suppression).where(Suppression.by_order_id == order_id))
    return [
        Step(
            row.since,
            "left",
            f"the address was refused for good, and is mailed no more: {row.response}"
            if row.cause == "refused"
            else "the customer wants no more emails "
            + ("about this order" if row.order_id else "of this business"),
            "services.notifier",
        )
        for row in rows
    ]


def _in_words(event: Mapping[str, Any]) -> str:
    email = (event.get("customer_details") or {}).get("email", "")
    return f"{event.get('item_summary', '')} for {email}"
