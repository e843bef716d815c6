"""What still waits somewhere for an order or an account: outbox, retry ladder, dead letters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kombu import Connection
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.dead_letters import retry_queue, search
from services.ops.dead_letters.letter import Criteria
from shared.bus.contract import topology
from shared.db.models import OutboxMessage
from shared.db.session import let_go


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
class OnBus:
    """What was found on the bus.

    Attributes:
        messages: what waits.
        is_whole: false when somebody was at work in a queue: what they had in hand is missing.
    """

    messages: Sequence[Waiting] = ()
    is_whole: bool = True


def in_outbox(session: Session, correlation_id: str) -> list[Waiting]:
    """What the relay has not published yet."""
    # No index: the outbox is empty but for what is under way.
    rows = session.scalars(
        select(OutboxMessage)
        .where(OutboxMessage.correlation_id == correlation_id)
        .order_by(OutboxMessage.sequence)
    )
    return [
        Waiting(
            "outbox",
            "",
            str(row.message_id),
            row.type,
            row.created_at,
            row.attempts,
            row.reason,
        )
        for row in rows.all()
    ]


def on_the_bus(session: Session, connection: Connection, correlation_id: str) -> OnBus:
    """What is on the retry ladder or among the dead letters.

    Args:
        session: by which was read; it is let go before the broker is waited for.
        connection: an open kombu connection.
        correlation_id: the order or account, as text.
    """
    let_go(session)
    ladder = retry_queue.waiting(connection)
    is_whole = ladder.alone
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
    for queue in topology.WORK_QUEUES:
        page = search.browse(connection, queue, wanted)
        is_whole &= page.alone
        found += [
            Waiting(
                place=queue.dead,
                queue=queue.name,
                message_id=letter.message_id,
                type=letter.type,
                since=letter.failed_at,
                attempts=letter.attempts,
                reason=letter.reason,
            )
            for letter in page.letters
        ]
    return OnBus(found, is_whole)
