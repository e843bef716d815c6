"""The trail of an order: from the request to the last email, and its waiting messages."""

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
    """All facts about an order.

    Attributes:
        order_number: the sender's number; empty if unknown.
        order_id: its id.
        account_id: the business's; None if the order is not recorded and has no known request.
        company_name: the business's.
        customer_name: the customer's; this and the following are empty while it is not recorded.
        customer_email: the customer's.
        item_summary: the items.
        tracking_status: the current status.
        metadata: further fields of the sender.
        parcel: tracking fields and the expected delivery.
        steps: its history, oldest first.
        waiting: its waiting messages; None if the bus was not read.
        is_test: whether it is a test order, whose emails go to its business only.
        is_whole: see `pending.Pending`.
        are_all_requests: whether the request log was searched completely, within its time limit.
        looked_at: see `pending.Pending`.
        is_cut: whether older states or emails are left out.
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
    are_all_requests: bool = True
    looked_at: datetime | None = None
    is_cut: bool = False

    @property
    def is_recorded(self) -> bool:
        """Whether the order is in the database."""
        return bool(self.tracking_status)


def order_trail(
    session: Session,
    order_id: UUID,
    *,
    account_id: UUID | None = None,
    connection: Connection | None = None,
    browse: pending.Browse = search.browse,
) -> OrderTrail | None:
    """Return the trail of an order; None if nothing is known of it.

    Args:
        session: may read the tables of services.orders and services.notifier.
        order_id: its id.
        account_id: the business's, if known: it speeds up the search for an unrecorded order.
        connection: an open kombu connection, to search the bus for waiting messages.
        browse: searches dead letters there.

    Raises:
        BusyError: nothing was found, and the search was incomplete.
    """
    order = session.get(Order, order_id)
    history: Sequence[OrderStatusHistory] = ()
    is_all = is_all_sent = True
    if order is None:
        sent, is_all_sent = requests.not_recorded(session, order_id, account_id)
    else:
        history, is_all = _history(session, order_id)
        sent = requests.by_events(session, _message_ids(session, order_id, history))
    done = mended.of(session, str(order_id))
    steps = [*(_request(request) for request in sent), *done.steps]
    account_id = sent[0].account_id if sent else None
    searched = pending.find(session, [str(order_id)], connection, browse)
    found = searched.messages
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
        if not is_all_sent:
            raise BusyError(requests.NOT_WHOLE)
        if not searched.is_whole:
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
        is_whole=searched.is_whole,
        are_all_requests=is_all_sent,
        looked_at=searched.looked_at,
        is_test=order is not None and order.is_test,
        is_cut=not is_all,
    )


def _number_awaited(session: Session, sent: Sequence[requests.Request]) -> str | None:
    """Return the number by which waiting updates name an unrecorded order."""
    events = [request.event_id for request in sent if request.event_id]
    return session.scalar(
        select(WaitingUpdate.order_number)
        .where(WaitingUpdate.event_id.in_(events), WaitingUpdate.order_number.is_not(None))
        .limit(1)
    )


def _history(session: Session, order_id: UUID) -> tuple[Sequence[OrderStatusHistory], bool]:
    updates = select(OrderStatusHistory).where(OrderStatusHistory.order_id == order_id)
    return latest(session, updates, OrderStatusHistory.at, OrderStatusHistory.event_id)


def _message_ids(
    session: Session, order_id: UUID, history: Sequence[OrderStatusHistory]
) -> set[UUID]:
    """Return the ids of an order's messages; the first is its own id, unless it has a key."""
    conflicts = select(OrderConflict.event_id).where(
        OrderConflict.order_id == order_id, OrderConflict.event.is_not(None)
    )
    return {order_id, *(update.event_id for update in history), *session.scalars(conflicts)}


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
    """Whether a request creates an order, and its message was not discarded."""
    is_created = request.accepted and request.event_type in CREATED
    return is_created and str(request.event_id) not in gone


def _not_recorded(sent: Sequence[requests.Request], found: Sequence[Waiting]) -> Step:
    """Return the step of an accepted, unrecorded order, with the place where it waits."""
    places = {message.place for message in found}
    where = f"it waits in {', '.join(sorted(places))}" if places else "it waits for the recorder"
    at = min(request.at for request in sent if request.accepted)
    return Step(at, "due", f"accepted, not recorded yet: {where}", "services.orders")


def _life(order: Order, history: Sequence[OrderStatusHistory]) -> list[Step]:
    """Return the steps of the order: accepted, recorded, each status."""
    return [
        Step(order.accepted_at, "accepted", "taken over from the sender", "services.ingress"),
        Step(order.recorded_at, "recorded", "in the database", "services.orders", order.id),
        *(
            Step(
                update.at,
                "status",
                update.tracking_status
                + (f": {words}" if words else "")
                + ("" if update.applied else ", does not count"),
                "services.orders",
                update.event_id,
                update.applied,
                words,
            )
            for update in history
            for words in ["; ".join(filter(None, (update.note, in_words(update.tracking or {}))))]
        ),
    ]


def _conflicts(session: Session, order_id: UUID) -> list[Step]:
    """Return the steps of other orders with the same number or key, which changed nothing."""
    theirs = select(OrderConflict).where(OrderConflict.order_id == order_id)
    rows = session.scalars(theirs.where(OrderConflict.event.is_not(None)))
    left_out = theirs.where(OrderConflict.event.is_(None)).order_by(OrderConflict.at).limit(1)
    more = "more orders under the same number or key, which the request log alone has"
    return [
        Step(
            row.at,
            "conflict",
            f"another order under the same {_name(row.event)}, which is not recorded: {summary}",
            "services.orders",
            row.event_id,
            False,
            summary,
        )
        for row in rows
        if row.event
        for summary in [_in_words(row.event)]
    ] + [
        Step(row.at, "conflict", more, "services.orders", row.event_id, False)
        for row in session.scalars(left_out)
    ]


def in_words(parcel: Mapping[str, str]) -> str:
    """Return the tracking fields in one line."""
    return ", ".join(parcel[field] for field in PARCEL if field in parcel)


def _name(event: Mapping[str, Any]) -> str:
    return "number" if event.get("order_number") else "key"


def _no_more_emails(session: Session, order_id: UUID) -> list[Step]:
    """Return the steps of unsubscriptions and refused addresses that this order caused."""
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
