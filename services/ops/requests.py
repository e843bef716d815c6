"""The webhook requests of an order: what its sender sent, and when.

The request log is read where the database has it (table `webhook_requests`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

AT_MOST = 100


@dataclass(frozen=True, slots=True)
class Request:
    """One webhook request.

    Attributes:
        at: when it arrived.
        accepted: whether it was answered 201.
        code: `accepted`, or the code of the error.
        event_id: the message that it became.
        event_type: what it said.
        order_id: the order that it is about.
        account_id: whose.
        idempotency_key: the sender's.
        address: the client's.
    """

    at: datetime
    accepted: bool
    code: str
    event_id: UUID | None
    event_type: str | None
    order_id: UUID | None
    account_id: UUID
    idempotency_key: str | None
    address: str


def by_order(session: Session, order_id: UUID) -> Sequence[Request]:
    """The requests about an order, oldest first."""
    return _find(session, "order_id = :value", order_id)


def by_idempotency_key(session: Session, key: str) -> Sequence[Request]:
    """The requests with an idempotency key, of whichever account, oldest first."""
    return _find(session, "idempotency_key = :value", key)


def refusals(session: Session, account_id: UUID, *, since: datetime) -> dict[str, int]:
    """How many requests of an account were refused since a time, by error code."""
    if not _is_there(session):
        return {}
    rows = session.execute(
        text(
            "SELECT code, count(*) FROM webhook_requests"
            " WHERE account_id = :account_id AND at > :since AND NOT accepted"
            " GROUP BY code ORDER BY count(*) DESC"
        ),
        {"account_id": account_id, "since": since},
    )
    return {row[0]: row[1] for row in rows}


def _is_there(session: Session) -> bool:
    return session.scalar(text("SELECT to_regclass('webhook_requests')")) is not None


def _find(session: Session, condition: str, value: object) -> Sequence[Request]:
    if not _is_there(session):
        return ()
    rows = session.execute(
        text(
            "SELECT at, accepted, code, event_id, event_type, order_id, account_id,"  # noqa: S608
            f" idempotency_key, client_address FROM webhook_requests WHERE {condition}"
            " ORDER BY at, id LIMIT :most"
        ),
        {"value": value, "most": AT_MOST},
    )
    return [Request(*row) for row in rows]
