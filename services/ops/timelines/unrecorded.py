"""Finds accepted, unrecorded orders by the customer's address.

The request log keeps no bodies. So the waiting messages are searched: the outbox, the delay queues,
the dead letters and, while the recorder has a backlog, the journal from the oldest of it on.
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
from shared.bus.broker import declaration
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.events import OrderCreated, OrderPlaced, decode
from shared.db.deadline import TookTooLongError, at_most
from shared.db.models import Order, OutboxMessage
from shared.db.session import release_connection
from shared.validation.email_addresses import compared

QUEUE = topology.ORDERS_INTAKE
BATCH = 500
AT_MOST = 200_000
"""Messages of the journal that one search reads."""
SECONDS = 10.0
"""Its time limit, and that of the outbox."""
MARGIN = timedelta(minutes=1)
_TYPES = (OrderCreated.TYPE, OrderPlaced.TYPE)
"""Events that create an order; each can be decoded as the first."""
UNKNOWN = timedelta(hours=1)
"""Where to begin if no recorder reports its progress."""


SayWhole = Callable[[bool], None]
"""Called with whether a place was searched completely."""
SeenWithout = Callable[[Connection, topology.Queue, str], datetime | None]
"""Returns the time of a digest without dead letters about an address; None to search the queue."""
Unrecorded = tuple[OrderCreated, datetime | None]
"""An unrecorded order, and the time of its message; None if that has none."""


def search_all(*_: object) -> None:
    """Search every queue; a `SeenWithout` without digests."""


def by_email(
    session: Session,
    connection: Connection,
    email: str,
    seen_without: SeenWithout = search_all,
) -> tuple[list[Unrecorded], bool, datetime | None]:
    """Find the unrecorded orders of a customer.

    Args:
        session: may read orders, the outbox and heartbeats; its transaction is ended before the bus
            is searched.
        connection: an open kombu connection.
        email: the customer's address, in any case.
        seen_without: returns whether a digest makes the search of dead letters unnecessary.

    Returns:
        The orders, newest first; whether the search was complete; and the time of the digest, if
        dead letters were searched in one.

    Raises:
        reading.NotReadToTheEndError: the broker stopped sending the journal.
        BusyError: another tool holds messages of a queue.
    """
    ends: list[bool] = []
    in_outbox = [*_for_customer(_in_outbox(session, email, ends.append), email)]
    release_connection(session)
    looked_at = seen_without(connection, QUEUE, email)
    dead = [] if looked_at else [QUEUE.dead]
    found = {
        order.order_id: (order, at)
        for order, at in (
            *in_outbox,
            *_for_customer(_held(connection, dead, ends.append), email),
            *_for_customer(_in_journal(session, connection, ends.append), email),
        )
    }
    if not found:
        return [], all(ends), looked_at
    recorded = set(session.scalars(select(Order.id).where(Order.id.in_(found))))
    left = [order for id_, order in found.items() if id_ not in recorded]
    never = datetime.min.replace(tzinfo=UTC)
    left.sort(key=lambda order: order[1] or never, reverse=True)
    return left, all(ends), looked_at


def _for_customer(
    bodies: Iterable[tuple[bytes, datetime | None]], email: str
) -> Iterator[Unrecorded]:
    wanted = compared(email)
    needle = wanted.encode()
    for body, at in bodies:
        # Cheaper than decoding. JSON may escape characters beyond ASCII.
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
    """Search the outbox in the database, in batches: after an outage it has millions of rows."""
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
    for name in (*(rung.name for rung in topology.RETRY_DELAYS), *dead):
        with hold(connection, name) as held:
            if not held.alone:
                raise BusyError.of(name)
            while messages := held.take(BATCH):
                for incoming in map(RawDelivery.of, messages):
                    yield incoming.body, incoming.stated_time
            say_whole(not held.unseen)


def _in_journal(
    session: Session, connection: Connection, say_whole: SayWhole
) -> Iterator[tuple[bytes, datetime | None]]:
    """Search what was accepted since the recorder's progress, while it has a backlog."""
    now = datetime.now(UTC)
    beats = [
        report
        for beat in heartbeats.read(session, now)
        if (report := beat.queues.get(QUEUE.name)) is not None
    ]
    release_connection(session)
    parts = declaration.parts(connection, QUEUE)
    waiting = [name for name in parts if count(connection, name)]
    if not waiting and not any(report.unacked for report in beats):
        return
    reached = max((report.reached for report in beats if report.reached), default=now - UNKNOWN)
    if len(parts) > 1:
        # A shard may be far behind the others, or have no consumer that reports its progress.
        for part in waiting:
            times = [at for report in beats if (at := report.reached_of(QUEUE.name, part))]
            if not times:
                say_whole(False)
            reached = min(reached, max(times, default=now - UNKNOWN))
    deadline = time.monotonic() + SECONDS
    for number, entry in enumerate(reading.read(connection, reached - MARGIN)):
        if number >= AT_MOST or time.monotonic() > deadline:
            say_whole(False)
            return
        if entry.type in _TYPES:
            yield entry.incoming.body, entry.incoming.stated_time
