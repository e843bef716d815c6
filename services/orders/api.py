"""The HTTP side: an account sees its own orders."""

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
from shared.http.listing import Cursor, Limit, Stamp, from_cursor, in_utc, latest, to_cursor
from shared.http.route import Answer, Call, Route
from shared.ids import normalised_number, order_of_number
from shared.security import tracking
from shared.validation.email_addresses import compared, spellings

Mode = Literal["live", "test"]


class Filter(msgspec.Struct, kw_only=True):
    """Which orders, and where the page begins; those of test mode are asked for by it alone."""

    mode: Mode = "live"
    order_number: Reference | None = None
    status: TrackingStatus | None = None
    customer_email: Email | None = None
    created_from: Stamp | None = None
    created_to: Stamp | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class Part(msgspec.Struct, kw_only=True):
    """Where the page begins, and how long it is."""

    cursor: Cursor | None = None
    limit: Limit = 50


class Customer(msgspec.Struct, kw_only=True):
    """Who ordered."""

    name: str
    email: str
    phone: str


class OrderView(Parcel, kw_only=True):
    """An order and where it is; `order_number` and `metadata` are as its sender gave them."""

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
    """A status that the sender reported; not `applied` when it came too late to count."""

    tracking_status: str
    note: str
    at: datetime
    applied: bool


class EmailView(msgspec.Struct, kw_only=True):
    """An email that was sent about the order, or could not be."""

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

    Of history and emails the latest 500 are shown; `history_is_complete` and `emails_are_complete`
    say whether that is all. All of the history is at `GET /orders/{order_id}/history/`.
    `customer_page` is the link that its customer's next email has, null where there is no such
    page; so many as `ended_links` led there before.
    """

    customer_page: str | None
    ended_links: int
    status_history: list[StatusView]
    history_is_complete: bool
    emails: list[EmailView]
    emails_are_complete: bool
    conflicts: list[ConflictView]


class Page(msgspec.Struct, kw_only=True):
    """Orders, newest first; `next` is the cursor of the next page, null on the last."""

    results: list[OrderView]
    next: str | None


class HistoryPage(msgspec.Struct, kw_only=True):
    """States, the latest first; `next` is the cursor of the next page, null on the last."""

    results: list[StatusView]
    next: str | None


_NOT_FOUND = ("order_not_found", "You have no order with this id.")


def index(session: Session, call: Call[None, Filter]) -> Answer:
    """A page of the account's orders."""
    wanted = call.query
    is_live = wanted.mode == "live"
    query = select(Order).where(Order.account_id == call.caller, Order.is_live == is_live)
    if wanted.order_number is not None:
        number = normalised_number(wanted.order_number)
        named = order_of_number(call.caller, number, is_test=not is_live)
        query = query.where(or_(Order.id == named, Order.has_number_in_shop(number)))
    if wanted.status is not None:
        query = query.where(Order.tracking_status == wanted.status.value)
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
    orders = session.scalars(newest_first.limit(wanted.limit + 1)).all()
    page = orders[: wanted.limit]
    more = len(orders) > wanted.limit
    return Answer(
        200,
        Page(
            results=[OrderView(**_common(order)) for order in page],
            next=to_cursor(page[-1].accepted_at, page[-1].id.bytes) if more else None,
        ),
    )


def show(session: Session, call: Call[None, None]) -> Answer:
    """One of the account's orders; another account's is as unknown as one that is not there."""
    order = _own(session, call)
    said = select(OrderStatusHistory).where(OrderStatusHistory.order_id == order.id)
    history, is_all_history = latest(
        session, said, OrderStatusHistory.at, OrderStatusHistory.event_id
    )
    mailed = select(EmailDelivery).where(EmailDelivery.subject_id == str(order.id))
    emails, are_all_emails = latest(session, mailed, EmailDelivery.at, EmailDelivery.id)
    conflicts = session.scalars(
        select(OrderConflict)
        .where(OrderConflict.order_id == order.id, OrderConflict.event.is_not(None))
        .order_by(OrderConflict.at, OrderConflict.event_id)
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
        ),
    )


def all_history(session: Session, call: Call[None, Part]) -> Answer:
    """A page of what was said of one of the account's orders, the latest first."""
    said = select(OrderStatusHistory).where(OrderStatusHistory.order_id == _own(session, call).id)
    if call.query.cursor is not None:
        at, id_ = from_cursor(call.query.cursor, 16)
        said = said.where(_when_said < (at, UUID(bytes=id_)))
    latest_first = said.order_by(OrderStatusHistory.at.desc(), OrderStatusHistory.event_id.desc())
    found = session.scalars(latest_first.limit(call.query.limit + 1)).all()
    page = found[: call.query.limit]
    more = len(found) > len(page)
    end = to_cursor(page[-1].at, page[-1].event_id.bytes) if more else None
    return Answer(200, HistoryPage(results=list(map(_status, page)), next=end))


def end_links(session: Session, call: Call[None, None]) -> Answer:
    """End the links of every email about an order so far; those of later emails are others."""
    if not session.scalar(select(func.end_tracking_links(call.caller, _named(call)))):
        raise ApiError(404, *_NOT_FOUND)
    return Answer(204)


def _own(session: Session, call: Call[Any, Any]) -> Order:
    order = session.get(Order, _named(call))
    if order is None or order.account_id != call.caller:
        raise ApiError(404, *_NOT_FOUND)
    return order


def _status(said: OrderStatusHistory) -> StatusView:
    return StatusView(
        tracking_status=said.tracking_status,
        note=said.note,
        at=said.at,
        applied=said.applied,
        **parcel(said.tracking),
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


# Where an order stands in the list: by acceptance, which two may share.
_place = tuple_(Order.accepted_at, Order.id)
_when_said = tuple_(OrderStatusHistory.at, OrderStatusHistory.event_id)


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
        summary="All that was said of one order, the latest first",
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
        summary="End the links of a customer's emails about an order, such as one that went astray",
        answers={204: None},
        errors=((404, *_NOT_FOUND),),
        bearer=True,
        tag="Orders",
    ),
    *tracking_api.ROUTES,
)
