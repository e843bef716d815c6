"""Orders that were accepted and are not in the books yet, found by their customer's address.

The request log keeps no bodies. So what waits is looked through: the outbox, the retry ladder, the
dead letters and, while the recorder has not caught up, what the journal has of its backlog, from
the oldest on.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec
from kombu import Connection
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services.ops.broker.hold import BusyError, count, hold
from services.ops.journal import reading
from services.ops.monitoring import heartbeats
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.events import OrderCreated, OrderPlaced, decode
from shared.db.deadline import TookTooLongError, at_most
from shared.db.models import Order, OutboxMessage
from shared.db.session import let_go
from shared.validation.email_addresses import compared

QUEUE = topology.ORDERS_INTAKE
BATCH = 500
AT_MOST = 200_000
"""So many messages of the journal are looked through for one question."""
SECONDS = 10.0
"""And for so long."""
MARGIN = timedelta(minutes=1)
_TYPES = (OrderCreated.TYPE, OrderPlaced.TYPE)
"""Those that make an order; each can be read as the first."""
UNKNOWN = timedelta(hours=1)
"""How far back to begin where no recorder says how far it is."""


SayWhole = Callable[[bool], None]
"""Told by a place whether all of it was looked through."""
SeenWithout = Callable[[Connection, topology.Queue, str], datetime | None]
"""When no dead letter of a queue was about an address; None where that is to be looked for."""
Unrecorded = tuple[OrderCreated, datetime | None]
"""An order that waits to be recorded, and since when; None where its message does not say."""


def look_at_all(*_: object) -> None:
    """Nothing is known of a queue before it is looked through; a `SeenWithout`."""


def by_email(
    session: Session,
    connection: Connection,
    email: str,
    seen_without: SeenWithout = look_at_all,
) -> tuple[list[Unrecorded], bool, datetime | None]:
    """The orders for a customer that are not recorded, the newest first.

    With them goes whether all that waits was looked through, and when the dead letters were, where
    that was before.

    Args:
        session: may read orders, the outbox and heartbeats; let go while the bus is looked through.
        connection: an open kombu connection.
        email: the customer's address, in whatever case.
        seen_without: whether dead letters need be looked through.

    Raises:
        reading.NotReadToTheEndError: the broker fell silent over the journal.
        BusyError: somebody is at work in a queue, so that not all is known.
    """
    ends: list[bool] = []
    in_outbox = [*_meant(_in_outbox(session, email, ends.append), email)]
    let_go(session)
    looked_at = seen_without(connection, QUEUE, email)
    dead = [] if looked_at else [QUEUE.dead]
    found = {
        order.order_id: (order, at)
        for order, at in (
            *in_outbox,
            *_meant(_held(connection, dead, ends.append), email),
            *_meant(_in_journal(session, connection, ends.append), email),
        )
    }
    if not found:
        return [], all(ends), looked_at
    recorded = set(session.scalars(select(Order.id).where(Order.id.in_(found))))
    left = [one for id_, one in found.items() if id_ not in recorded]
    never = datetime.min.replace(tzinfo=UTC)
    left.sort(key=lambda one: one[1] or never, reverse=True)
    return left, all(ends), looked_at


def _meant(bodies: Iterable[tuple[bytes, datetime | None]], email: str) -> Iterator[Unrecorded]:
    wanted = compared(email)
    needle = wanted.encode()
    for body, at in bodies:
        # Before the body is decoded, which costs far more. Beyond ASCII JSON has other spellings.
        if wanted.isascii() and needle not in body.lower():
            continue
        try:
            order = decode(OrderCreated.TYPE, body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(order, OrderCreated) and compared(order.customer_details.email) == wanted:
            yield order, at


def _in_outbox(
    session: Session, email: str, say_whole: SayWhole
) -> Iterator[tuple[bytes, datetime | None]]:
    """Looked through by the database, a batch at a time: in an outage there are millions."""
    query = select(OutboxMessage.body, OutboxMessage.created_at).where(
        OutboxMessage.type.in_(_TYPES)
    )
    wanted = compared(email)
    if wanted.isascii():
        words = func.lower(func.encode(OutboxMessage.body, "escape"))
        query = query.where(func.strpos(words, wanted) > 0)
    deadline = time.monotonic() + SECONDS
    try:
        with at_most(session, SECONDS):
            for body, at in session.execute(query.execution_options(yield_per=BATCH)):
                yield bytes(body), at
                if time.monotonic() > deadline:
                    say_whole(False)
                    return
    except TookTooLongError:
        say_whole(False)


def _held(
    connection: Connection, dead: Iterable[str], say_whole: SayWhole
) -> Iterator[tuple[bytes, datetime | None]]:
    for name in (*(rung.name for rung in topology.RETRY_LADDER), *dead):
        with hold(connection, name) as held:
            if not held.alone:
                raise BusyError.of(name)
            while messages := held.take(BATCH):
                for incoming in map(Incoming.of, messages):
                    yield incoming.body, incoming.stated_time
            say_whole(not held.unseen)


def _in_journal(
    session: Session, connection: Connection, say_whole: SayWhole
) -> Iterator[tuple[bytes, datetime | None]]:
    """What was accepted since the recorder last got on, while something waits for it."""
    now = datetime.now(UTC)
    beats = [
        said
        for beat in heartbeats.read(session, now)
        if (said := beat.queues.get(QUEUE.name)) is not None
    ]
    let_go(session)
    if not count(connection, QUEUE.name) and not any(said.unacked for said in beats):
        return
    reached = max((said.reached for said in beats if said.reached), default=now - UNKNOWN)
    deadline = time.monotonic() + SECONDS
    for number, entry in enumerate(reading.read(connection, reached - MARGIN)):
        if number >= AT_MOST or time.monotonic() > deadline:
            say_whole(False)
            return
        if entry.type in _TYPES:
            yield entry.incoming.body, entry.incoming.stated_time
