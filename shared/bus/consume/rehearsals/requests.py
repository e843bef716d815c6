"""Rehearsals asked for by ops staff and made by the service that would handle the message.

It alone has the rights, the keys and the settings of its handlers; the console has none of them and
gets none. They meet in a table whose rows are gone once they are read, and after `KEPT_SECONDS`
anyway.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from shared.bus.consume.rehearsals.trying import Report, rehearse
from shared.bus.consume.subscription import Subscription, decoding
from shared.bus.contract.delivery import Incoming, believed
from shared.db.session import transaction
from shared.ids import new_id

CHANNEL = "rehearsals"
"""The NOTIFY channel that wakes who answers."""
SECONDS = 20.0
"""From one look for requests to the next, behind NOTIFY, which a lost connection loses."""
GOOD_SECONDS = 20  # after which nobody waits for the answer any more
KEPT_SECONDS = 30  # with the look that ends it, less than the minute that is promised
AT_ONCE = 20  # requests answered in one look

log = structlog.get_logger()


class _Request(msgspec.Struct):
    """A message as it would arrive."""

    body: bytes
    properties: dict[str, Any]
    headers: dict[str, Any]
    exchange: str
    routing_key: str
    sent_at: datetime | None = None


def ask(session: Session, queue: str, incoming: Incoming) -> UUID:
    """Ask what a message would do.

    Args:
        session: committed by the caller; before that nobody sees the question.
        queue: the work queue that it would arrive in.
        incoming: the message.

    Returns:
        What to fetch the answer by.
    """
    id_ = new_id()
    properties = dict(incoming.properties)
    # Of the properties the one that JSON has no form of.
    sent_at = properties.pop("timestamp", None)
    request = _Request(
        body=incoming.body,
        properties=properties,
        headers=dict(incoming.headers),
        exchange=incoming.exchange,
        routing_key=incoming.routing_key,
        sent_at=sent_at if isinstance(sent_at, datetime) else None,
    )
    values = {"id": id_, "queue": queue, "message": msgspec.json.encode(request)}
    session.execute(_ASK, values)
    session.execute(_NOTIFY)
    return id_


def fetch(session: Session, id_: UUID) -> Report | None:
    """Take an answer out; None as long as there is none."""
    found = session.scalar(_FETCH, {"id": id_})
    return None if found is None else msgspec.json.decode(found, type=Report)


def withdraw(session: Session, id_: UUID) -> None:
    """Take a question back."""
    session.execute(_WITHDRAW, {"id": id_})


def answering(
    subscriptions: Sequence[Subscription], engine: Engine, user: str
) -> Callable[[Session], None]:
    """The job that makes the rehearsals of a process's subscriptions.

    Args:
        subscriptions: those that cannot be rehearsed are answered for by nobody.
        engine: for the rehearsals; see `trying.rehearse`.
        user: who the process signs in to the broker as.
    """
    by_queue = {s.queue.name: s for s in subscriptions if s.rehearsed is not None}
    queues = sorted(by_queue)

    def answer(_: Session) -> None:
        for _number in range(AT_ONCE):
            # Taken in a transaction of its own: what kills the process is not tried again.
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
    properties = dict(request.properties)
    if request.sent_at is not None:
        properties["timestamp"] = request.sent_at.astimezone(UTC)
    queue = subscription.queue.name
    incoming = Incoming(
        body=request.body,
        properties=properties,
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


# Of a service that is away it is here that its old ones are forgotten: they are no other's.
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
