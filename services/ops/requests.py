"""The webhook requests behind an order, and those of an account that were refused."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.db.models import WebhookRequest

AT_MOST = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One webhook request; see the table `webhook_requests`."""

    at: datetime
    accepted: bool
    code: str
    event_id: UUID | None
    event_type: str | None
    account_id: UUID
    idempotency_key: str | None
    address: str


def by_events(session: Session, event_ids: Collection[UUID]) -> Sequence[Request]:
    """The requests that became these messages, oldest first; a repeated one became the same."""
    rows = session.execute(
        select(
            WebhookRequest.at,
            WebhookRequest.accepted,
            WebhookRequest.code,
            WebhookRequest.event_id,
            WebhookRequest.event_type,
            WebhookRequest.account_id,
            WebhookRequest.idempotency_key,
            WebhookRequest.client_address,
        )
        .where(WebhookRequest.event_id.in_(event_ids))
        .order_by(WebhookRequest.at, WebhookRequest.id)
        .limit(AT_MOST)
    )
    return [Request(*row) for row in rows.all()]


def refusals(session: Session, account_id: UUID, *, since: datetime) -> dict[str, int]:
    """How many requests of an account were refused since a time, by error code."""
    rows = session.execute(
        select(WebhookRequest.code, func.count())
        .where(
            WebhookRequest.account_id == account_id,
            WebhookRequest.accepted.is_(False),
            WebhookRequest.at > since,
        )
        .group_by(WebhookRequest.code)
        .order_by(func.count().desc())
    )
    return {row[0]: row[1] for row in rows}
