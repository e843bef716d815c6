"""The rows of the outbox, as the relay takes them and writes down what became of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select, text, tuple_

from shared.bus.message import Message
from shared.db import arrays
from shared.db.models import OutboxMessage

Destination = tuple[str, str]
"""An exchange and a routing key: what the broker decides by, and what may fail to confirm."""

FIRST_WAIT, LONGEST_WAIT = 30, 3600
"""Seconds until a parked row is tried again: twice as long after each time."""
LEASE_SECONDS = 60
"""How long a row is left to the relay that waits for its confirm, unless that renews it."""

_table = OutboxMessage.__table__
_NEEDED = (
    _table.c.sequence,
    _table.c.message_id,
    _table.c.exchange,
    _table.c.routing_key,
    _table.c.type,
    _table.c.correlation_id,
    _table.c.source,
    _table.c.traceparent,
    _table.c.time,
    _table.c.body,
    _table.c.written_by,
)


@dataclass(slots=True)
class Outcome:
    """What became of rows, by sequence.

    Attributes:
        confirmed: safe on the bus.
        doubtful: sent, and nobody knows; for the reason that is given.
        parked: they cannot be published, for the reason that is given.
        held: sent, and still waited for: nobody else tries them for `LEASE_SECONDS`.
    """

    confirmed: list[int] = field(default_factory=list)
    doubtful: dict[int, str] = field(default_factory=dict)
    parked: dict[int, str] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)


def take_fresh(
    connection: Connection, after: int, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    """Lock rows that were never tried, in their order, until the transaction ends.

    Args:
        connection: its transaction holds the locks.
        after: a sequence; those up to it are not looked at.
        without: destinations to leave alone.
        limit: how many.
    """
    query = select(*_NEEDED).where(_table.c.next_try_at.is_(None))
    if after:
        query = query.where(_table.c.sequence > after)
    return _take(connection, query.order_by(_table.c.sequence), without, limit)


def take_due(
    connection: Connection, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    """Lock rows whose next try is due, the longest due first, until the transaction ends.

    Args:
        connection: its transaction holds the locks.
        without: destinations to leave alone.
        limit: how many.
    """
    query = select(*_NEEDED).where(_table.c.next_try_at <= func.clock_timestamp())
    return _take(connection, query.order_by(_table.c.next_try_at), without, limit)


def take_one_fresh(connection: Connection, destination: Destination) -> Sequence[Row[Any]]:
    """Lock the first row of a destination that was never tried."""
    query = select(*_NEEDED).where(
        _table.c.next_try_at.is_(None),
        _table.c.exchange == destination[0],
        _table.c.routing_key == destination[1],
    )
    return _take(connection, query.order_by(_table.c.sequence), (), 1)


def _take(
    connection: Connection, query: Any, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    excluded = list(without)
    if excluded:
        query = query.where(tuple_(_table.c.exchange, _table.c.routing_key).not_in(excluded))
    rows: Sequence[Row[Any]] = connection.execute(
        query.limit(limit).with_for_update(skip_locked=True)
    ).all()
    return rows


def settle(connection: Connection, outcome: Outcome) -> None:
    """Write down what became of rows, and commit.

    Args:
        connection: its transaction may hold their locks.
        outcome: of each that something became of; the others are left as they were.
    """
    if outcome.confirmed:
        connection.execute(delete(OutboxMessage).where(_table.c.sequence.in_(outcome.confirmed)))
    if outcome.doubtful:
        connection.execute(_DOUBT, _by_sequence(outcome.doubtful))
    if outcome.parked:
        waits = {"first": FIRST_WAIT, "longest": LONGEST_WAIT}
        connection.execute(_PARK, _by_sequence(outcome.parked) | waits)
    if outcome.held:
        connection.execute(_HOLD, {"sequences": _numbers(outcome.held), "seconds": LEASE_SECONDS})
    connection.commit()


def message(row: Row[Any]) -> Message:
    """The message that a row holds."""
    return Message(
        exchange=row.exchange,
        routing_key=row.routing_key,
        type=row.type,
        message_id=str(row.message_id),
        body=bytes(row.body),
        correlation_id=row.correlation_id,
        time=row.time,
        source=row.source,
        traceparent=row.traceparent,
    )


def _by_sequence(reasons: Mapping[int, str]) -> dict[str, Any]:
    return {"sequences": _numbers(reasons), "reasons": arrays.texts(reasons.values())}


def _numbers(values: Iterable[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


_DOUBT = text("""
    UPDATE outbox
    SET attempts = attempts + 1, next_try_at = clock_timestamp(), reason = why
    FROM unnest(CAST(:sequences AS bigint[]), CAST(:reasons AS text[])) AS given(sequence, why)
    WHERE outbox.sequence = given.sequence
""")
_PARK = text("""
    UPDATE outbox
    SET attempts = attempts + 1, reason = why, parked_at = coalesce(parked_at, clock_timestamp()),
        next_try_at = clock_timestamp()
            + make_interval(secs => least(:first * power(2, least(attempts, 20)), :longest))
    FROM unnest(CAST(:sequences AS bigint[]), CAST(:reasons AS text[])) AS given(sequence, why)
    WHERE outbox.sequence = given.sequence
""")
# What is under way is not parked: ops staff must leave it alone until its outcome is known.
_HOLD = text(
    "UPDATE outbox SET parked_at = NULL, "
    "next_try_at = clock_timestamp() + make_interval(secs => :seconds) "
    "WHERE sequence = ANY(CAST(:sequences AS bigint[]))"
)
