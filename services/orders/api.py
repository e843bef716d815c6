"""The HTTP API of an account's orders."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.orm import Session

from services.orders import test_mode_api, tracking_api
from services.orders.tracking_api import Parcel, parcel
from shared.bus.contract.events import Email, Reference, TrackingStatus
from shared.db.models import EmailDelivery, Order, OrderConflict, OrderStatusHistory
from shared.http.errors import ApiError
from shared.http.listing import (
    Cursor,
    Limit,
    Stamp,
    from_cursor,
    in_utc,
    latest,
    search_page,
    to_cursor,
)
from shared.http.route import Answer, Call, Route
from shared.ids import normalised_number, order_of_number
from shared.security import tracking
from shared.validation.email_addresses import compared, spellings

Mode = Literal["live", "test"]


class Filter(msgspec.Struct, kw_only=True):
    """Which orders, and where the page begins; test orders only with `mode`."""

    mode: Mode = "live"
    order_number: Reference | None = None
    status: TrackingStatus | None = None
    customer_email: Email | None = None
    created_from: Stamp | None = None
    created_to: Stamp | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class Part(msgspec.Struct, kw_only=True):
    """Where the page begins, and its length."""

    cursor: Cursor | None = None
    limit: Limit = 50


class Customer(msgspec.Struct, kw_only=True):
    """The customer of an order."""

    name: str
    email: str
    phone: str


class OrderView(Parcel, kw_only=True):
    """An order and its status; `order_number` and `metadata` are as its sender gave them."""

    order_number: str | None
    id: UUID
    customer_details: Customer
    item_summary: str
    address: str
    tracking_status: str
    status_at: datetime
    created_at: datetime
    recorded_at: datetime
    mode: Mode
    metadata: dict[str, str] | None


class StatusView(Parcel, kw_only=True):
    """A status that the sender reported; not `applied` if it came too late to count."""

    tracking_status: str
    note: str
    at: datetime
    applied: bool


class EmailView(msgspec.Struct, kw_only=True):
    """An email about the order that was sent, or could not be."""

    template: str
    recipient: str
    state: str
    at: datetime
    message_id: str


class ConflictView(Parcel, kw_only=True):
    """Another order that was sent under this one's number or key, and was not recorded."""

    event_id: UUID
    at: datetime
    customer_details: Customer
    item_summary: str
    address: str
    tracking_status: str
    order_number: str | None = None
    metadata: dict[str, str] | None = None


class OrderDetail(OrderView, kw_only=True):
    """An order with its history, its emails, and what was sent under the same number or key.

    History and emails have the latest 500; `history_is_complete` and `emails_are_complete` say
    whether that is all. All of the history is at `GET /orders/{order_id}/history/`.
    `customer_page` is the link in the customer's next email, null if there is no such page;
    `ended_links` counts its ended predecessors.
    `conflicts` has the first 20; `conflicts_are_complete` says whether that is all. The request log
    has the others.
    """

    customer_page: str | None
    ended_links: int
    status_history: list[StatusView]
    history_is_complete: bool
    emails: list[EmailView]
    emails_are_complete: bool
    conflicts: list[ConflictView]
    conflicts_are_complete: bool


class Page(msgspec.Struct, kw_only=True):
    """Orders, newest first; `next` is the cursor of the next page, null on the last.

    With a `status` a page covers 100,000 orders: there may be a next one though it has fewer than
    `limit`, or none.
    """

    results: list[OrderView]
    next: str | None


class HistoryPage(msgspec.Struct, kw_only=True):
    """Reported statuses, the latest first; `next` is the next page's cursor, null on the last."""

    results: list[StatusView]
    next: str | None


_NOT_FOUND = ("order_not_found", "You have no order with this id.")


def index(session: Session, call: Call[None, Filter]) -> Answer:
    """Return a page of the account's orders."""
    wanted = call.query
    is_live = wanted.mode == "live"
    query = select(Order).where(Order.account_id == call.caller, Order.is_live == is_live)
    if wanted.order_number is not None:
        number = normalised_number(wanted.order_number)
        named = order_of_number(call.caller, number, is_test=not is_live)
        query = query.where(or_(Order.id == named, Order.has_number_in_shop(number)))
    if wanted.customer_email is not None:
        written = spellings(compared(wanted.customer_email))
        query = query.where(func.lower(Order.customer_email).in_(written))
    if wanted.created_from is not None:
        query = query.where(Order.accepted_at >= in_utc(wanted.created_from))
    if wanted.created_to is not None:
        query = query.where(Order.accepted_at < in_utc(wanted.created_to))
    if wanted.cursor is not None:
        at, id_ = from_cursor(wanted.cursor, 16)
        query = query.where(_place < (at, UUID(bytes=id_)))
    newest_first = query.order_by(Order.accepted_at.desc(), Order.id.desc())
    page, end = search_page(
        session,
        Order,
        [newest_first],
        ("accepted_at", "id"),
        (lambda order: [order.tracking_status == wanted.status]) if wanted.status else None,
        wanted.limit,
    )
    return Answer(
        200,
        Page(
            results=[OrderView(**_common(order)) for order in page],
            next=to_cursor(end[0], end[1].bytes) if end else None,
        ),
    )


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return one of the account's orders; 404 for another account's as for an unknown one."""
    order = _own(session, call)
    entries = select(OrderStatusHistory).where(OrderStatusHistory.order_id == order.id)
    history, is_all_history = latest(
        session, entries, OrderStatusHistory.at, OrderStatusHistory.event_id
    )
    mailed = select(EmailDelivery).where(EmailDelivery.subject_id == str(order.id))
    emails, are_all_emails = latest(session, mailed, EmailDelivery.at, EmailDelivery.id)
    conflicts = session.scalars(
        select(OrderConflict)
        .where(OrderConflict.order_id == order.id, OrderConflict.event.is_not(None))
        .order_by(OrderConflict.at, OrderConflict.event_id)
    )
    more = select(OrderConflict.event_id).where(
        OrderConflict.order_id == order.id, OrderConflict.event.is_(None)
    )
    return Answer(
        200,
        OrderDetail(
            **_common(order),
            customer_page=tracking.page(order.id, order.tracking_link) or None,
            ended_links=order.tracking_link,
            status_history=list(map(_status, history)),
            history_is_complete=is_all_history,
            emails=[msgspec.convert(one, EmailView, from_attributes=True) for one in emails],
            emails_are_complete=are_all_emails,
            conflicts=[
                msgspec.convert(c.event | {"event_id": c.event_id, "at": c.at}, ConflictView)
                for c in conflicts
                if c.event
            ],
            conflicts_are_complete=session.scalar(more.limit(1)) is None,
        ),
    )


def all_history(session: Session, call: Call[None, Part]) -> Answer:
    """Return a page of an order's reported statuses, the latest first."""
    order_id = _own(session, call).id
    entries = select(OrderStatusHistory).where(OrderStatusHistory.order_id == order_id)
    if call.query.cursor is not None:
        at, id_ = from_cursor(call.query.cursor, 16)
        entries = entries.where(_place_in_history < (at, UUID(bytes=id_)))
    latest_first = entries.order_by(
        OrderStatusHistory.at.desc(), OrderStatusHistory.event_id.desc()
    )
    found = session.scalars(latest_first.limit(call.query.limit + 1)).all()
    page = found[: call.query.limit]
    more = len(found) > len(page)
    end = to_cursor(page[-1].at, page[-1].event_id.bytes) if more else None
    return Answer(200, HistoryPage(results=list(map(_status, page)), next=end))


def end_links(session: Session, call: Call[None, None]) -> Answer:
    """End the links in all emails about an order so far; later emails get another."""
    if not session.scalar(select(func.end_tracking_links(call.caller, _named(call)))):
        raise ApiError(404, *_NOT_FOUND)
    return Answer(204)


def _own(session: Session, call: Call[Any, Any]) -> Order:
    order = session.get(Order, _named(call))
    if order is None or order.account_id != call.caller:
        raise ApiError(404, *_NOT_FOUND)
    return order


def _status(entry: OrderStatusHistory) -> StatusView:
    return StatusView(
        tracking_status=entry.tracking_status,
        note=entry.note,
        at=entry.at,
        applied=entry.applied,
        **parcel(entry.tracking),
    )


def _named(call: Call[Any, Any]) -> UUID:
    try:
        return UUID(call.path["order_id"])
    except ValueError:
        raise ApiError(404, *_NOT_FOUND) from None


def _common(order: Order) -> dict[str, Any]:
    return {
        "id": order.id,
        "order_number": order.order_number,
        "metadata": order.sent_metadata,
        **parcel(order.tracking),
        "customer_details": Customer(
            name=order.customer_name, email=order.customer_email, phone=order.customer_phone
        ),
        "item_summary": order.item_summary,
        "address": order.address,
        "tracking_status": order.tracking_status,
        "status_at": order.status_at,
        "created_at": order.accepted_at,
        "recorded_at": order.recorded_at,
        "mode": "test" if order.is_test else "live",
    }


# By acceptance, then by id, since two may have the same time.
_place = tuple_(Order.accepted_at, Order.id)
_place_in_history = tuple_(OrderStatusHistory.at, OrderStatusHistory.event_id)


ROUTES = (
    *test_mode_api.ROUTES,
    Route(
        method="GET",
        path="/orders/",
        handler=index,
        summary="Your orders, newest first",
        query=Filter,
        answers={200: Page},
        bearer=True,
        tag="Orders",
    ),
    Route(
        method="GET",
        path="/orders/{order_id}/",
        handler=show,
        summary="One order with its history and emails",
        answers={200: OrderDetail},
        errors=((404, *_NOT_FOUND),),
        bearer=True,
        tag="Orders",
    ),
    Route(
        method="GET",
        path="/orders/{order_id}/history/",
        handler=all_history,
        summary="The whole history of one order, the latest first",
        query=Part,
        answers={200: HistoryPage},
        errors=((404, *_NOT_FOUND),),
        bearer=True,
        tag="Orders",
    ),
    Route(
        method="DELETE",
        path="/orders/{order_id}/customer-links/",
        handler=end_links,
        summary="End the links of a customer's emails about an order, for example a leaked one",
        answers={204: None},
        errors=((404, *_NOT_FOUND),),
        bearer=True,
        tag="Orders",
    ),
    *tracking_api.ROUTES,
)
