"""The webhook requests behind an order, and those of an account that were refused."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, any_, cast, func, or_, select
from sqlalchemy.orm import Session

from shared.db.models import WebhookRequest, WebhookSecret

AT_MOST = 100
LATELY = timedelta(days=2)
"""What is not recorded was accepted within so long, or its recorder has been ill for days."""


@dataclass(frozen=True, slots=True)
class Request:
    """One webhook request; see the table `webhook_requests`."""

    at: datetime
    accepted: bool
    code: str
    event_id: UUID | None
    event_type: str | None
    order_id: UUID | None
    account_id: UUID
    idempotency_key: str | None
    address: str


_COLUMNS = {"address": "client_address"}  # where it has another name


def by_events(session: Session, event_ids: Collection[UUID]) -> Sequence[Request]:
    """The requests that became these messages, oldest first; a repeated one became the same."""
    return _found(session, WebhookRequest.event_id.in_(event_ids))


def not_recorded(session: Session, order_id: UUID) -> Sequence[Request]:
    """The accepted requests about an order that is in no book but this, oldest first.

    Args:
        session: may read the request log.
        order_id: which order.
    """
    # No index by order: one would cost every request, for what is asked a few times a day. What is
    # not recorded is of the last days.
    return _found(session, _lately(), WebhookRequest.order_id == order_id)


def orders_of_key(session: Session, key: str) -> set[UUID]:
    """The orders that were accepted under an idempotency key within `LATELY`.

    Args:
        session: may read the request log.
        key: the sender's.
    """
    rows = session.scalars(
        select(WebhookRequest.order_id)
        .where(_lately(), WebhookRequest.idempotency_key == key, WebhookRequest.accepted)
        .limit(AT_MOST)
    )
    return {id_ for id_ in rows if id_ is not None}


def accepted_lately(session: Session, order_ids: Collection[UUID]) -> set[UUID]:
    """Those of these orders that an accepted request was about within `LATELY`.

    Args:
        session: may read the request log.
        order_ids: which orders.
    """
    rows = session.scalars(
        select(WebhookRequest.order_id)
        .where(
            _lately(),
            WebhookRequest.order_id == any_(cast(list(order_ids), ARRAY(Uuid))),
            WebhookRequest.accepted,
        )
        .limit(AT_MOST)
    )
    return {id_ for id_ in rows if id_ is not None}


def refusals(session: Session, account_id: UUID, *, since: datetime) -> dict[str, int]:
    """How many requests of an account were refused since a time, by error code; no tests."""
    tests = select(WebhookSecret.id).where(
        WebhookSecret.account_id == account_id, WebhookSecret.is_test
    )
    rows = session.execute(
        select(WebhookRequest.code, func.count())
        .where(
            WebhookRequest.account_id == account_id,
            WebhookRequest.accepted.is_(False),
            WebhookRequest.at > since,
            or_(WebhookRequest.secret_id.is_(None), WebhookRequest.secret_id.not_in(tests)),
        )
        .group_by(WebhookRequest.code)
        .order_by(func.count().desc())
    )
    return {row[0]: row[1] for row in rows}


def _lately() -> ColumnElement[bool]:
    return WebhookRequest.at > datetime.now(UTC) - LATELY


def _found(session: Session, *conditions: ColumnElement[bool]) -> Sequence[Request]:
    columns = [getattr(WebhookRequest, _COLUMNS.get(name, name)) for name in Request.__slots__]
    rows = session.execute(
        select(*columns)
        .where(*conditions)
        .order_by(WebhookRequest.at, WebhookRequest.id)
        .limit(AT_MOST)
    )
    return [Request(*row) for row in rows.all()]
