"""What still waits somewhere for an order or an account: outbox, retry ladder, dead letters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kombu import Connection
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.dead_letters import retry_queue, search
from services.ops.dead_letters.letter import Criteria, Letter, Line
from shared.bus.contract import topology
from shared.db.deadline import TookTooLongError, at_most
from shared.db.models import OutboxMessage
from shared.db.session import let_go

Browse = Callable[..., search.Page[Line] | search.Page[Letter]]
"""As `search.browse`: what looks through dead letters."""
OUTBOX_SECONDS = 1.0
"""For looking through the outbox; in a long outage of the broker it holds very much."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits.

    Attributes:
        place: `outbox`, or the queue: `retry.30s`, `orders.intake.dead`.
        queue: the work queue that it is for; empty in the outbox.
        message_id: its id.
        type: its type.
        since: since when; None where that is not known.
        attempts: how many times it was tried.
        reason: why it waits, where it failed.
    """

    place: str
    queue: str
    message_id: str
    type: str
    since: datetime | None
    attempts: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """What was found.

    Attributes:
        messages: what waits.
        is_whole: false when not all could be looked at: somebody had some in hand, or there was
            more than can be looked through.
        looked_at: when the dead letters were looked through, where that was before.
    """

    messages: Sequence[Waiting] = ()
    is_whole: bool = True
    looked_at: datetime | None = None


def find(
    session: Session,
    correlation_id: str,
    connection: Connection | None,
    browse: Browse = search.browse,
) -> Pending:
    """What is in the outbox, and on the bus where that is looked through.

    Args:
        session: may read the outbox; it is let go before the broker is waited for.
        correlation_id: the order or account, as text.
        connection: an open kombu connection; None: only the outbox is looked at.
        browse: looks through dead letters.
    """
    found = _in_outbox(session, correlation_id)
    if connection is None:
        return found
    let_go(session)
    bus = _on_the_bus(connection, correlation_id, browse)
    messages = [*found.messages, *bus.messages]
    return Pending(messages, found.is_whole and bus.is_whole, bus.looked_at)


def _in_outbox(session: Session, correlation_id: str) -> Pending:
    """What the relay has not published yet."""
    # No index, which each message would pay for: as a rule little waits there.
    query = (
        select(OutboxMessage)
        .where(OutboxMessage.correlation_id == correlation_id)
        .order_by(OutboxMessage.sequence)
    )
    try:
        with at_most(session, OUTBOX_SECONDS):
            rows = session.scalars(query).all()
    except TookTooLongError:
        return Pending(is_whole=False)
    return Pending(
        [
            Waiting(
                "outbox",
                "",
                str(row.message_id),
                row.type,
                row.created_at,
                row.attempts,
                row.reason,
            )
            for row in rows
        ]
    )


def _on_the_bus(connection: Connection, correlation_id: str, browse: Browse) -> Pending:
    """What is on the retry ladder or among the dead letters."""
    ladder = retry_queue.waiting(connection)
    is_whole = ladder.alone and not ladder.unseen
    found = [
        Waiting(
            place=message.rung,
            queue=message.queue,
            message_id=message.message_id,
            type=message.type,
            since=message.failed,
            attempts=message.attempts,
            reason=message.reason,
        )
        for message in ladder.messages
        if message.correlation_id == correlation_id
    ]
    wanted = Criteria(correlation_id=correlation_id)
    before: list[datetime] = []
    for queue in topology.WORK_QUEUES:
        page = browse(connection, queue, wanted)
        is_whole &= page.is_whole
        before += [page.looked_at] if page.looked_at else []
        found += [
            Waiting(
                place=queue.dead,
                queue=queue.name,
                message_id=letter.message_id,
                type=letter.type,
                since=letter.died_at,
                attempts=letter.attempts,
                reason=letter.reason,
            )
            for letter in page.letters
        ]
    return Pending(found, is_whole, min(before, default=None))
