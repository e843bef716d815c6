"""Requests for rehearsals, made by ops staff and answered by the service of the queue.

Only that service has the rights, keys and settings of its handlers. Request and report are in a
table; a row is deleted when its report is fetched, and after `KEPT_SECONDS` in any case.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from shared.bus.consume.rehearsals.trying import Report, rehearse
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.contract.delivery import RawDelivery, believed
from shared.db.session import transaction
from shared.ids import new_id

CHANNEL = "rehearsals"
"""The NOTIFY channel that wakes the answering services."""
SECONDS = 20.0
"""Interval of polling, in case a NOTIFY was lost with its connection."""
GOOD_SECONDS = 20  # after which the console no longer waits for the report
KEPT_SECONDS = 30  # with the poll that deletes it, less than the promised minute
AT_ONCE = 20  # requests answered in one poll

log = structlog.get_logger()


class _Request(msgspec.Struct):
    """A message as the consumer would receive it."""

    body: bytes
    properties: dict[str, Any]
    headers: dict[str, Any]
    exchange: str
    routing_key: str


def ask(session: Session, queue: str, incoming: RawDelivery) -> UUID:
    """Request a rehearsal.

    Args:
        session: committed by the caller, which makes the request visible.
        queue: the work queue of the message.
        incoming: the message.

    Returns:
        The id for `fetch`.
    """
    id_ = new_id()
    request = _Request(
        body=incoming.body,
        properties=dict(incoming.properties),
        headers=dict(incoming.headers),
        exchange=incoming.exchange,
        routing_key=incoming.routing_key,
    )
    values = {"id": id_, "queue": queue, "message": msgspec.json.encode(request)}
    session.execute(_ASK, values)
    session.execute(_NOTIFY)
    return id_


def fetch(session: Session, id_: UUID) -> Report | None:
    """Delete and return a report; None if there is none yet."""
    found = session.scalar(_FETCH, {"id": id_})
    return None if found is None else msgspec.json.decode(found, type=Report)


def withdraw(session: Session, id_: UUID) -> None:
    """Delete a request."""
    session.execute(_WITHDRAW, {"id": id_})


def answering(
    subscriptions: Sequence[Subscription], engine: Engine, user: str
) -> Callable[[Session], None]:
    """Return the job that answers requests for a process's subscriptions.

    Args:
        subscriptions: requests for those without `rehearsed` are not answered.
        engine: for the rehearsals; see `trying.rehearse`.
        user: the process's broker user.
    """
    by_queue = {s.queue.name: s for s in subscriptions if s.rehearsed is not None}
    queues = sorted(by_queue)

    def answer(_: Session) -> None:
        for _number in range(AT_ONCE):
            # In a separate transaction, so that a message that kills the process is not retried.
            with transaction() as session:
                taken = session.execute(_TAKE, {"queues": queues}).first()
            if taken is None:
                return
            report = _rehearsed(by_queue[taken.queue], engine, user, taken.message)
            with transaction() as session:
                values = {"id": taken.id, "report": msgspec.json.encode(report)}
                session.execute(_ANSWER, values)

    return answer


def _rehearsed(subscription: Subscription, engine: Engine, user: str, message: bytes) -> Report:
    request = msgspec.json.decode(message, type=_Request)
    queue = subscription.queue.name
    incoming = RawDelivery(
        body=request.body,
        properties=request.properties,
        headers=request.headers,
        exchange=request.exchange,
        routing_key=request.routing_key,
        believed=believed(queue, user),
    )
    assert subscription.rehearsed is not None  # noqa: S101 - for mypy: chosen by it
    decode = decoding(subscription)
    return rehearse(
        engine,
        subscription.consumer,
        decode,
        subscription.rehearsed,
        incoming,
        keyed=subscription.keyed,
    )


# Old requests for a service that is down are deleted here: no other service takes them.
_ASK = text(f"""
    WITH forgotten AS (
        DELETE FROM rehearsals WHERE asked_at < now() - interval '{KEPT_SECONDS} s'
    )
    INSERT INTO rehearsals (id, queue, message) VALUES (:id, :queue, :message)
""")  # noqa: S608
_NOTIFY = text(f"NOTIFY {CHANNEL}")
_FETCH = text("DELETE FROM rehearsals WHERE id = :id AND report IS NOT NULL RETURNING report")
_WITHDRAW = text("DELETE FROM rehearsals WHERE id = :id")
_TAKE = text(f"""
    WITH forgotten AS (
        DELETE FROM rehearsals WHERE asked_at < now() - interval '{KEPT_SECONDS} s'
    )
    UPDATE rehearsals SET taken_at = now() WHERE id = (
        SELECT id FROM rehearsals
        WHERE queue = ANY(:queues) AND taken_at IS NULL
              AND asked_at > now() - interval '{GOOD_SECONDS} s'
        ORDER BY asked_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, queue, message
""")  # noqa: S608
_ANSWER = text("UPDATE rehearsals SET report = :report WHERE id = :id")
