"""Pages of a business's requests and orders, and of all emails, newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from shared.db.models import EmailDelivery, Order, WebhookRequest
from shared.db.request_log import outcomes
from shared.http.listing import search_page

Place = tuple[datetime, int]
"""The end of a page of requests: the time and the number of the last one."""
L = TypeVar("L")


class Page(list[L]):
    """A page of a list.

    Attributes:
        end: the place of the last examined row, after which there may be more; None at the end.
    """

    end: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook request; see the table `webhook_requests`."""

    at: datetime
    id: int
    accepted: bool
    code: str
    event_type: str | None
    order_id: UUID | None
    idempotency_key: str | None
    scheme: str
    body_bytes: int | None
    latency_us: int
    client_address: str


@dataclass(frozen=True, slots=True)
class OrderLine:
    """An order; see the table `orders`."""

    id: UUID
    order_number: str | None
    accepted_at: datetime
    customer_name: str
    customer_email: str
    item_summary: str
    tracking_status: str
    status_at: datetime


@dataclass(frozen=True, slots=True)
class Email:
    """An email; see the table `email_deliveries`."""

    id: UUID
    at: datetime
    template: str
    recipient: str
    state: str
    response: str
    subject_id: str


def requests(
    session: Session,
    account_id: UUID,
    *,
    code: str = "",
    is_accepted: bool | None = None,
    before: Place | None = None,
    limit: int = 100,
) -> Page[Request]:
    """Return a page of an account's requests.

    Args:
        session: may read the request log.
        account_id: the account's.
        code: `accepted`, or an error code; empty for any.
        is_accepted: whether to return accepted or refused ones; None for both.
        before: the end of the previous page.
        limit: the most rows.
    """
    place = (WebhookRequest.at, WebhookRequest.id)
    newest_first = select(WebhookRequest).order_by(*(column.desc() for column in place))
    if before is not None:
        # The first condition is redundant, but lets PostgreSQL skip partitions.
        newest_first = newest_first.where(WebhookRequest.at <= before[0], tuple_(*place) < before)
    found, end = search_page(
        session,
        WebhookRequest,
        [
            newest_first.where(
                WebhookRequest.account_id == account_id, WebhookRequest.accepted.is_(outcome)
            )
            for outcome in outcomes(is_accepted, code)
        ],
        ("at", "id"),
        (lambda request: [request.code == code]) if code else None,
        limit,
    )
    return _page(Request, found, end)


def orders(
    session: Session,
    account_id: UUID,
    *,
    status: str = "",
    after: UUID | None = None,
    limit: int = 100,
) -> Page[OrderLine]:
    """Return a page of an account's orders, without test orders.

    Args:
        session: may read the orders.
        account_id: the account's.
        status: the current status; empty for any.
        after: the last order of the previous page.
        limit: the most rows.
    """
    query = select(Order).where(Order.account_id == account_id, Order.is_live)
    if after is not None:
        last = select(Order.accepted_at, Order.id).where(Order.id == after).scalar_subquery()
        query = query.where(tuple_(Order.accepted_at, Order.id) < last)
    found, end = search_page(
        session,
        Order,
        [query.order_by(Order.accepted_at.desc(), Order.id.desc())],
        ("accepted_at", "id"),
        (lambda order: [order.tracking_status == status]) if status else None,
        limit,
    )
    return _page(OrderLine, found, end)


def emails(
    session: Session, *, state: str = "", after: UUID | None = None, limit: int = 100
) -> Page[Email]:
    """Return a page of all emails.

    Args:
        session: may read the notifier's tables.
        state: see `email_deliveries`; empty for all.
        after: the last email of the previous page.
        limit: the most rows.
    """
    query = select(EmailDelivery)
    if state:
        query = query.where(EmailDelivery.state == state)
    if after is not None:
        last = (
            select(EmailDelivery.at, EmailDelivery.id)
            .where(EmailDelivery.id == after)
            .scalar_subquery()
        )
        query = query.where(tuple_(EmailDelivery.at, EmailDelivery.id) < last)
    query = query.order_by(EmailDelivery.at.desc(), EmailDelivery.id.desc())
    found, end = search_page(session, EmailDelivery, [query], ("at", "id"), None, limit)
    return _page(Email, found, end)


def _page(line: Any, found: Sequence[Any], end: tuple[Any, ...] | None) -> Page[Any]:
    page = Page(line(*(getattr(row, name) for name in line.__slots__)) for row in found)
    page.end = end
    return page
