"""The rows of the outbox, as the relay takes them and writes down what became of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row, case, func, or_, select, text, tuple_

from shared.bus.contract import journal
from shared.bus.contract.message import MENDED_BY, Message
from shared.db import arrays
from shared.db.models import OutboxMessage

Destination = tuple[str, str]
"""An exchange and a routing key: what the broker decides by, and what may fail to confirm."""

FIRST_WAIT, LONGEST_WAIT = 30, 3600
"""Seconds until a parked row is tried again: twice as long after each time."""
LEASE_SECONDS = 60
"""How long a row is left to the relay that waits for its confirm, unless that renews it."""

LARGE_BYTES = 1024 * 1024
"""A body that is not read beside a thousand others: it has a turn of its own, see `take_due`."""
MOST_BYTES = 32 * 1024 * 1024

log = structlog.get_logger()

_table = OutboxMessage.__table__
_HEAD = (
    _table.c.sequence,
    _table.c.message_id,
    _table.c.exchange,
    _table.c.routing_key,
    _table.c.type,
    _table.c.correlation_id,
    _table.c.source,
    _table.c.traceparent,
    _table.c.time,
    _table.c.written_by,
    _table.c.mended_by,
)
_SIZE = func.octet_length(_table.c.body)


@dataclass(slots=True)
class Outcome:
    """What became of rows, by sequence.

    Attributes:
        confirmed: safe on the bus; they were locked all the time.
        confirmed_unlocked: the same of others, with the messages' ids: a standby that was promoted
            gives the last numbers once more, and then one may be another row's.
        doubtful: sent, and nobody knows; for the reason that is given.
        unsent: they could not be sent, through no fault of theirs, for the reason that is given.
        parked: they cannot be published, for the reason that is given.
        deferred: not sent, since they are large or of a kind that is not known: due at once, and
            not fresh any more.
        held: sent, and still waited for: nobody else tries them for `LEASE_SECONDS`.
    """

    confirmed: list[int] = field(default_factory=list)
    confirmed_unlocked: dict[int, UUID] = field(default_factory=dict)
    doubtful: dict[int, str] = field(default_factory=dict)
    unsent: dict[int, str] = field(default_factory=dict)
    parked: dict[int, str] = field(default_factory=dict)
    deferred: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    @property
    def no_longer_fresh(self) -> int:
        """How many of the rows that were fresh are so no more."""
        known = (self.confirmed, self.doubtful, self.parked, self.deferred)
        return sum(map(len, known))


def take_fresh(
    connection: Connection, after: int, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    """Lock rows that were never tried, in their order, until the transaction ends.

    The body of a large one is None.

    Args:
        connection: its transaction holds the locks.
        after: a sequence; those up to it are not looked at.
        without: destinations to leave alone.
        limit: how many.
    """
    body = case((_SIZE <= LARGE_BYTES, _table.c.body)).label("body")
    query = select(*_HEAD, body).where(_table.c.next_try_at.is_(None))
    if after:
        query = query.where(_table.c.sequence > after)
    return _take(connection, query.order_by(_table.c.sequence), without, limit)


def take_due(
    connection: Connection, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    """Lock rows whose next try is due, the longest due first, until the transaction ends.

    Not more than can be held in memory, whatever their size.

    Args:
        connection: its transaction holds the locks.
        without: destinations to leave alone.
        limit: how many.
    """
    query = select(_table.c.sequence, _SIZE.label("size")).where(
        _table.c.next_try_at <= func.clock_timestamp()
    )
    chosen: list[int] = []
    total = 0
    for row in _take(connection, query.order_by(_table.c.next_try_at), without, limit):
        total += row.size
        if chosen and total > MOST_BYTES:
            break
        chosen.append(row.sequence)
    if not chosen:
        return []
    whole = select(*_HEAD, _table.c.body).where(_table.c.sequence.in_(chosen))
    found: Sequence[Any] = connection.execute(whole.order_by(_table.c.next_try_at)).all()
    return found


def take_one_fresh(connection: Connection, destination: Destination) -> Sequence[Row[Any]]:
    """Lock the first row of a destination that was never tried."""
    query = select(*_HEAD, _table.c.body).where(
        _table.c.next_try_at.is_(None),
        _table.c.exchange == destination[0],
        _table.c.routing_key == destination[1],
    )
    return _take(connection, query.order_by(_table.c.sequence), (), 1)


def is_wanted(connection: Connection, destination: Destination) -> bool:
    """Whether there are rows for a destination, but for those that are parked for later."""
    query = select(_table.c.sequence).where(
        _table.c.exchange == destination[0],
        _table.c.routing_key == destination[1],
        or_(
            _table.c.parked_at.is_(None),
            _table.c.reason == "",
            _table.c.next_try_at <= func.clock_timestamp(),
        ),
    )
    return connection.execute(query.limit(1)).first() is not None


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
        connection.execute(_DELETE_LOCKED, {"sequences": _numbers(outcome.confirmed)})
    if outcome.confirmed_unlocked:
        given = outcome.confirmed_unlocked
        values = {"sequences": _numbers(given), "ids": arrays.uuids(given.values())}
        connection.execute(_DELETE, values)
    if outcome.doubtful:
        connection.execute(_DOUBT, _by_sequence(outcome.doubtful))
    if outcome.unsent:
        connection.execute(_UNSENT, _by_sequence(outcome.unsent))
    if outcome.parked:
        waits = {"first": FIRST_WAIT, "longest": LONGEST_WAIT}
        connection.execute(_PARK, _by_sequence(outcome.parked) | waits)
    if outcome.deferred:
        connection.execute(_HOLD, {"sequences": _numbers(outcome.deferred), "seconds": 0})
    if outcome.held:
        connection.execute(_HOLD, {"sequences": _numbers(outcome.held), "seconds": LEASE_SECONDS})
    connection.commit()


def tell_parked(found: Sequence[Row[Any]], outcome: Outcome) -> None:
    """Say in the log which of these rows are parked, and why."""
    for row in found:
        reason = outcome.parked.get(row.sequence)
        if reason is not None:
            log.error(
                "parked",
                sequence=row.sequence,
                type=row.type,
                written_by=row.written_by,
                reason=reason[:300],
            )


def message(row: Any) -> Message:
    """The message that a row holds."""
    # By position, in the order of `_HEAD`: by name it costs twice as much, row by row.
    _, message_id, exchange, key, type_, about, source, traceparent, time, _, mender, body = row
    if mender:  # who wrote it does not say this
        source = f"{MENDED_BY}{mender}"
    return Message(
        exchange, key, type_, str(message_id), bytes(body), about, time, source, traceparent
    )


def checked(row: Any) -> Message:
    """The message that a row holds, which others than we may have written, to be sent.

    Raises:
        ValueError: it cannot be, for the reason that is given.
    """
    found = message(row)
    journal.check(found)
    return found


def unfit(error: Exception) -> str:
    """Why a row cannot be encoded, by what was raised over it."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _by_sequence(reasons: Mapping[int, str]) -> dict[str, Any]:
    return {"sequences": _numbers(reasons), "reasons": arrays.texts(reasons.values())}


def _numbers(values: Iterable[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


_DELETE_LOCKED = text("DELETE FROM outbox WHERE sequence = ANY(CAST(:sequences AS bigint[]))")
_DELETE = text(
    "DELETE FROM outbox WHERE sequence = ANY(CAST(:sequences AS bigint[])) "
    "AND message_id = ANY(CAST(:ids AS uuid[]))"
)
_DOUBT = text("""
    UPDATE outbox
    SET attempts = attempts + 1, next_try_at = clock_timestamp(), reason = why, parked_at = NULL
    FROM unnest(CAST(:sequences AS bigint[]), CAST(:reasons AS text[])) AS given(sequence, why)
    WHERE outbox.sequence = given.sequence
""")
# What is parked stays parked since when it was: ops staff may still change it.
_UNSENT = text("""
    UPDATE outbox SET next_try_at = clock_timestamp(), reason = why
    FROM unnest(CAST(:sequences AS bigint[]), CAST(:reasons AS text[])) AS given(sequence, why)
    WHERE outbox.sequence = given.sequence
""")
_PARK = text("""
    UPDATE outbox
    SET attempts = attempts + 1, reason = coalesce(nullif(why, ''), 'It does not say why.'),
        parked_at = coalesce(parked_at, clock_timestamp()),
        next_try_at = clock_timestamp()
            + make_interval(secs => least(:first * power(2, least(attempts, 20)), :longest))
    FROM unnest(CAST(:sequences AS bigint[]), CAST(:reasons AS text[])) AS given(sequence, why)
    WHERE outbox.sequence = given.sequence
""")
# Without a reason: what is under way ops staff must leave alone until its outcome is known. Since
# when it is parked stays, unless it is sent.
_HOLD = text(
    "UPDATE outbox SET reason = '', "
    "next_try_at = clock_timestamp() + make_interval(secs => :seconds) "
    "WHERE sequence = ANY(CAST(:sequences AS bigint[]))"
)
