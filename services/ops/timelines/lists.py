"""A business's requests and orders, and everybody's emails: page by page, the newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from shared.db.models import EmailDelivery, Order, WebhookRequest
from shared.db.request_log import outcomes

Place = tuple[datetime, int]
"""Where a page of requests ended: the time and the number of the last one."""


@dataclass(frozen=True, slots=True)
class Request:
    """One webhook request; see the table `webhook_requests`."""

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
    """One order; see the table `orders`."""

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
    """One email; see the table `email_deliveries`."""

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
) -> Sequence[Request]:
    """Requests of an account.

    Args:
        session: may read the request log.
        account_id: whose.
        code: `accepted`, or that of an error; empty for any.
        is_accepted: those alone, or the refused ones alone; None for both.
        before: where the page before ended.
        limit: how many at most.
    """
    columns = [getattr(WebhookRequest, name) for name in Request.__slots__]
    found: list[Request] = []
    for outcome in outcomes(is_accepted, code):
        query = select(*columns).where(
            WebhookRequest.account_id == account_id, WebhookRequest.accepted.is_(outcome)
        )
        if code:
            query = query.where(WebhookRequest.code == code)
        if before is not None:
            place = tuple_(WebhookRequest.at, WebhookRequest.id)
            # The first condition says nothing new, but by it partitions are left out.
            query = query.where(WebhookRequest.at <= before[0], place < before)
        newest = (WebhookRequest.at.desc(), WebhookRequest.id.desc())
        found += [Request(*row) for row in session.execute(query.order_by(*newest).limit(limit))]
    return sorted(found, key=lambda one: (one.at, one.id), reverse=True)[:limit]


def orders(
    session: Session,
    account_id: UUID,
    *,
    status: str = "",
    after: UUID | None = None,
    limit: int = 100,
) -> Sequence[OrderLine]:
    """Orders of an account, but for those of its test mode.

    Args:
        session: may read the orders.
        account_id: whose.
        status: where they are now; empty for any.
        after: the order that the page before ended with.
        limit: how many at most.
    """
    columns = [getattr(Order, name) for name in OrderLine.__slots__]
    query = select(*columns).where(Order.account_id == account_id, Order.is_live)
    if status:
        query = query.where(Order.tracking_status == status)
    if after is not None:
        last = select(Order.accepted_at, Order.id).where(Order.id == after).scalar_subquery()
        query = query.where(tuple_(Order.accepted_at, Order.id) < last)
    query = query.order_by(Order.accepted_at.desc(), Order.id.desc()).limit(limit)
    return [OrderLine(*row) for row in session.execute(query)]


def emails(
    session: Session, *, state: str = "", after: UUID | None = None, limit: int = 100
) -> Sequence[Email]:
    """Emails to anybody.

    Args:
        session: may read what the notifier writes.
        state: as `email_deliveries` has it; empty for all.
        after: the email that the page before ended with.
        limit: how many at most.
    """
    columns = [getattr(EmailDelivery, name) for name in Email.__slots__]
    query = select(*columns)
    if state:
        query = query.where(EmailDelivery.state == state)
    if after is not None:
        last = (
            select(EmailDelivery.at, EmailDelivery.id)
            .where(EmailDelivery.id == after)
            .scalar_subquery()
        )
        query = query.where(tuple_(EmailDelivery.at, EmailDelivery.id) < last)
    query = query.order_by(EmailDelivery.at.desc(), EmailDelivery.id.desc()).limit(limit)
    return [Email(*row) for row in session.execute(query)]
