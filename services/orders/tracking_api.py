"""An order as its customer sees it, by the link of an email and without signing in.

What it tells is less than the email that the link came by: a link is passed on, so there is no
name of a person, no address of theirs and no way to another order.
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
from shared.languages.language import DEFAULT, language
from shared.languages.way import told_of_parcel
from shared.security import tracking
from shared.security.unsubscribe_tokens import order_unsubscribe_url


class Parcel(msgspec.Struct, kw_only=True):
    """Where a parcel can be followed, and the day on which it should be there."""

    carrier: str | None = None
    tracking_number: str | None = None
    tracking_url: str | None = None
    estimated_delivery: date | None = None


class TrackedStatus(msgspec.Struct, kw_only=True):
    """A status that the order has had, and what the sender noted with it."""

    tracking_status: str
    note: str
    at: datetime


class TrackedOrder(Parcel, kw_only=True):
    """An order: what was ordered of whom, and where it is.

    Of its history the latest 500 are shown; `history_is_complete` says whether that is all.
    Of its parcel it has what is told at its status: nothing of what was cancelled, no day of what
    is there.

    `display_name`, `reply_to`, `language` and `time_zone` are those of the seller's emails;
    `unsubscribe_url` is where those about this order are ended, and those alone, and null of a test
    order, which nobody is mailed about.
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
    """The order of a link; one that is wrong is as unknown as one whose order is gone."""
    try:
        link = tracking.link_of(call.path["token"])
    except tracking.InvalidLinkError:
        raise ApiError(404, *_NOT_FOUND) from None
    order = session.get(Order, link.order_id)
    if order is None or order.tracking_link != link.number:
        raise ApiError(404, *_NOT_FOUND)
    # A person who was erased has no order here any more, and neither has whoever has the link.
    if order.customer_email == erased.ADDRESS:
        raise ApiError(404, *_NOT_FOUND)
    # What it says, and where it leads, may be what its business was blocked for.
    if is_blocked(session, order.account_id):
        raise ApiError(404, *_NOT_FOUND)
    said = select(OrderStatusHistory).where(
        OrderStatusHistory.order_id == order.id, OrderStatusHistory.applied
    )
    history, is_all = latest(session, said, OrderStatusHistory.at, OrderStatusHistory.event_id)
    chosen = session.get(EmailSender, order.account_id)
    say = language(chosen.language if chosen else "")
    of_shop = is_of_shop(order.account_id, order.id, order.order_number, is_test=order.is_test)
    worded = partial(shops.said, say if of_shop else language(DEFAULT))
    return Answer(
        200,
        TrackedOrder(
            company_name=session.get_one(Account, order.account_id).company_name,
            display_name=chosen.display_name if chosen else "",
            reply_to=(chosen.reply_to or None) if chosen else None,
            order_number=order.order_number,
            **parcel(order.tracking, told_of_parcel(order.tracking_status)),
            item_summary=worded(order.item_summary),
            tracking_status=order.tracking_status,
            status_at=order.status_at,
            created_at=order.accepted_at,
            status_history=[
                TrackedStatus(tracking_status=h.tracking_status, note=worded(h.note), at=h.at)
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
    """Which link it is, whatever key it is signed by; None where it is none of ours."""
    try:
        link = tracking.link_of(path["token"])
    except tracking.InvalidLinkError:
        return None
    return f"{link.order_id} {link.number}"


def parcel(said: Mapping[str, Any] | None, fields: Collection[str] = FIELDS) -> dict[str, Any]:
    """The members of `Parcel`, of what is stored of an order or was said of it.

    Args:
        said: by field.
        fields: those that are told; the others are null.
    """
    known = {name: value for name, value in (said or {}).items() if name in fields}
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
