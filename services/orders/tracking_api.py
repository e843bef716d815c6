"""An order as its customer sees it, by the link of an email and without signing in.

It shows less than the email with the link, since links are shared: no person's name or address, and
no other orders.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.orders.tracking import FIELDS
from shared import erased
from shared.config.loading import settings
from shared.db.models import Account, EmailSender, Order, OrderStatusHistory
from shared.http.errors import ApiError
from shared.http.listing import latest
from shared.http.route import Answer, Call, Route
from shared.http.standing import is_blocked
from shared.ids import is_of_shop
from shared.languages import shops, time_zones
from shared.languages.delivery_steps import parcel_fields
from shared.languages.language import DEFAULT, language
from shared.security import tracking
from shared.security.unsubscribe_tokens import order_unsubscribe_url


class Parcel(msgspec.Struct, kw_only=True):
    """How to follow a parcel, and the day on which it is expected."""

    carrier: str | None = None
    tracking_number: str | None = None
    tracking_url: str | None = None
    estimated_delivery: date | None = None


class TrackedStatus(msgspec.Struct, kw_only=True):
    """A status of the order, and the sender's note."""

    tracking_status: str
    note: str
    at: datetime


class TrackedOrder(Parcel, kw_only=True):
    """An order with its items, its seller and its status.

    The history has the latest 500; `history_is_complete` says whether that is all. A cancelled
    order has no tracking data, a delivered one no estimated day.

    `display_name`, `reply_to`, `language` and `time_zone` are those of the seller's emails;
    `unsubscribe_url` ends the emails about this order only, and is null for a test order, which no
    customer is mailed about.
    """

    company_name: str
    display_name: str
    reply_to: str | None
    order_number: str | None
    item_summary: str
    tracking_status: str
    status_at: datetime
    created_at: datetime
    status_history: list[TrackedStatus]
    history_is_complete: bool
    language: str
    time_zone: str
    unsubscribe_url: str | None


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the order of a link; 404 for an invalid link as for a deleted order."""
    try:
        link = tracking.link_of(call.path["token"])
    except tracking.InvalidLinkError:
        raise ApiError(404, *_NOT_FOUND) from None
    order = session.get(Order, link.order_id)
    if order is None or order.tracking_link != link.number:
        raise ApiError(404, *_NOT_FOUND)
    # An erased customer has no order here.
    if order.customer_email == erased.ADDRESS:
        raise ApiError(404, *_NOT_FOUND)
    # Its texts and links may be the reason why its business was blocked.
    if is_blocked(session, order.account_id):
        raise ApiError(404, *_NOT_FOUND)
    entries = select(OrderStatusHistory).where(
        OrderStatusHistory.order_id == order.id, OrderStatusHistory.applied
    )
    history, is_all = latest(session, entries, OrderStatusHistory.at, OrderStatusHistory.event_id)
    chosen = session.get(EmailSender, order.account_id)
    say = language(chosen.language if chosen else "")
    of_shop = is_of_shop(order.account_id, order.id, order.order_number, is_test=order.is_test)
    translated = partial(shops.translated, say if of_shop else language(DEFAULT))
    return Answer(
        200,
        TrackedOrder(
            company_name=session.get_one(Account, order.account_id).company_name,
            display_name=chosen.display_name if chosen else "",
            reply_to=(chosen.reply_to or None) if chosen else None,
            order_number=order.order_number,
            **parcel(order.tracking, parcel_fields(order.tracking_status)),
            item_summary=translated(order.item_summary),
            tracking_status=order.tracking_status,
            status_at=order.status_at,
            created_at=order.accepted_at,
            status_history=[
                TrackedStatus(tracking_status=h.tracking_status, note=translated(h.note), at=h.at)
                for h in history
            ],
            history_is_complete=is_all,
            language=say.code,
            time_zone=time_zones.zone(chosen.time_zone if chosen else "").key,
            unsubscribe_url=None
            if order.is_test
            else order_unsubscribe_url(settings().public_url, order.id, order.tracking_link),
        ),
    )


def counted_by(path: Mapping[str, str]) -> str | None:
    """Return the key by which a link's requests are limited; None for an invalid link."""
    try:
        link = tracking.link_of(path["token"])
    except tracking.InvalidLinkError:
        return None
    return f"{link.order_id} {link.number}"


def parcel(stored: Mapping[str, Any] | None, fields: Collection[str] = FIELDS) -> dict[str, Any]:
    """Return the fields of `Parcel`.

    Args:
        stored: the tracking data of an order or of a history entry.
        fields: the fields to include; the others are null.
    """
    known = {name: value for name, value in (stored or {}).items() if name in fields}
    return msgspec.structs.asdict(msgspec.convert(known, Parcel))


_NOT_FOUND = (
    "link_not_found",
    "This link leads to no order: it is not whole, it was ended, or the order is gone.",
)

ROUTES = (
    Route(
        method="GET",
        path="/tracking/{token}/",
        handler=show,
        summary="An order as its customer sees it, by the link of an email",
        answers={200: TrackedOrder},
        errors=((404, *_NOT_FOUND),),
        link=counted_by,
        tag="Orders",
    ),
)
