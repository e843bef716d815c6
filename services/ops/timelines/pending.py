"""Waiting messages of an order or an account: in the outbox, the delay queues, dead letters."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from kombu import Connection
from sqlalchemy import ARRAY, Text, any_, bindparam, select
from sqlalchemy.orm import Session

from services.ops.dead_letters import retry_queue, search
from services.ops.dead_letters.letter import Criteria, Letter, Line
from shared.bus.contract import topology
from shared.db.deadline import TookTooLongError, at_most
from shared.db.models import OutboxMessage
from shared.db.session import release_connection

Browse = Callable[..., search.Page[Line] | search.Page[Letter]]
"""Searches dead letters, as `search.browse` does."""
OUTBOX_SECONDS = 1.0
"""For searching the outbox, which is long after an outage of the broker."""
OUTBOX_MESSAGES = 1_000
"""The most that are read, each with its body: a sender may send any number about one order."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting message.

    Attributes:
        place: `outbox`, or the queue: `retry.30s`, `orders.intake.dead`.
        queue: the work queue that it is for; empty in the outbox.
        message_id: its id.
        type: its type.
        since: since when; None if unknown.
        attempts: the number of attempts.
        reason: why it failed; empty if it did not.
        about: the order or account.
    """

    place: str
    queue: str
    message_id: str
    type: str
    since: datetime | None
    attempts: int = 0
    reason: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Pending:
    """The result of a search for waiting messages.

    Attributes:
        messages: the found ones.
        is_whole: false if the search was incomplete: another tool held messages, or there were too
            many.
        looked_at: the time of the digest, if dead letters were searched in one.
    """

    messages: Sequence[Waiting] = ()
    is_whole: bool = True
    looked_at: datetime | None = None


def find(
    session: Session,
    about: Collection[str],
    connection: Connection | None,
    browse: Browse = search.browse,
    queues: Sequence[topology.Queue] = topology.WORK_QUEUES,
) -> Pending:
    """Search the outbox, and the bus if there is a connection.

    Args:
        session: may read the outbox; its transaction is ended before the broker is read.
        about: the orders or accounts, as text.
        connection: an open kombu connection; None searches the outbox only.
        browse: searches dead letters.
        queues: whose dead letters to search.
    """
    found = _in_outbox(session, about)
    if connection is None:
        return found
    release_connection(session)
    bus = _on_the_bus(connection, frozenset(about), browse, queues)
    messages = [*found.messages, *bus.messages]
    return Pending(messages, found.is_whole and bus.is_whole, bus.looked_at)


def _in_outbox(session: Session, about: Collection[str]) -> Pending:
    """Return the unpublished messages."""
    # Without an index, which would slow down every message: the outbox is usually short.
    query = (
        select(OutboxMessage)
        .where(OutboxMessage.correlation_id == any_(bindparam(None, list(about), ARRAY(Text))))
        .order_by(OutboxMessage.sequence)
        .limit(OUTBOX_MESSAGES + 1)
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
                row.correlation_id or "",
            )
            for row in rows[:OUTBOX_MESSAGES]
        ],
        is_whole=len(rows) <= OUTBOX_MESSAGES,
    )


def _on_the_bus(
    connection: Connection,
    about: Collection[str],
    browse: Browse,
    queues: Sequence[topology.Queue],
) -> Pending:
    """Return the messages in delay queues and among the dead letters."""
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
            about=message.correlation_id,
        )
        for message in ladder.messages
        if message.correlation_id in about
    ]
    wanted = Criteria(about=about)
    before: list[datetime] = []
    for queue in queues:
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
                about=letter.correlation_id,
            )
            for letter in page.letters
        ]
    return Pending(found, is_whole, min(before, default=None))
