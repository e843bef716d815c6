"""The outbox table: take rows and write down their outcomes."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, Row, case, func, or_, select, text, tuple_

from shared.bus.contract import journal
from shared.bus.contract.message import MENDED_BY, Message
from shared.db import arrays
from shared.db.models import OutboxMessage

Destination = tuple[str, str]
"""An exchange and a routing key."""
Key = tuple[int, UUID]
"""A row's sequence and message id. Both, since a promoted standby may assign the last sequences
again, to other messages."""

FIRST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The first that an AMQP timestamp can hold (AMQP 0-9-1, 4.2.5.4)."""
FIRST_WAIT, LONGEST_WAIT = 30, 3600
"""Seconds until a parked row is retried, doubled after each try."""
LEASE_SECONDS = 60
"""How long a row is reserved for the relay that awaits its confirm, unless renewed."""

LARGE_BYTES = 16 * 1024
"""A larger body is not read in a batch of a thousand, but left to `take_due`: each is in memory
some six times while it is fetched and sent. Ordinary ones have about 1 KiB."""
MOST_DUE_BYTES = 4 * 1024 * 1024
"""The most bytes of bodies that `take_due` reads, unless one alone has more."""

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
    """The outcomes of rows, some with a reason.

    Attributes:
        confirmed: confirmed by the broker.
        doubtful: sent without a confirm; retried by the careful lane.
        unsent: not sent, for a reason that is not the row's.
        parked: refused, returned or not encodable.
        deferred: large, or of an unvetted kind: left to the careful lane.
        held: sent, and the confirm is awaited; reserved for `LEASE_SECONDS`.
    """

    confirmed: list[Key] = field(default_factory=list)
    doubtful: dict[Key, str] = field(default_factory=dict)
    unsent: dict[Key, str] = field(default_factory=dict)
    parked: dict[Key, str] = field(default_factory=dict)
    deferred: list[Key] = field(default_factory=list)
    held: list[Key] = field(default_factory=list)

    def each(self) -> Iterator[tuple[Key, str, str]]:
        """Yield each row, the name of its outcome, and the reason."""
        for one in fields(self):
            rows_ = getattr(self, one.name)
            for key_ in rows_:
                yield key_, one.name, rows_[key_] if isinstance(rows_, dict) else ""

    def enter(self, key_: Key, name: str, reason: str) -> None:
        """Add a row with values that `each` has yielded."""
        rows_ = getattr(self, name)
        if isinstance(rows_, dict):
            rows_[key_] = reason
        else:
            rows_.append(key_)

    @property
    def no_longer_fresh(self) -> int:
        """How many rows are no longer fresh."""
        known = (self.confirmed, self.doubtful, self.parked, self.deferred)
        return sum(map(len, known))


def take_fresh(
    connection: Connection, after: int, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    """Lock rows that were never tried, by sequence, until the transaction ends.

    The body of a row above `LARGE_BYTES` is None.

    Args:
        connection: its transaction holds the locks.
        after: rows up to this sequence are skipped.
        without: destinations to leave out.
        limit: the most rows.
    """
    body = case((_SIZE <= LARGE_BYTES, _table.c.body)).label("body")
    query = select(*_HEAD, body).where(_table.c.next_try_at.is_(None))
    if after:
        query = query.where(_table.c.sequence > after)
    return _take(connection, query.order_by(_table.c.sequence), without, limit)


def writers(connection: Connection) -> tuple[int, int]:
    """Return the ids of the oldest running transaction that has written, and of the next to begin.

    Transactions that only read, as a dump's, have no id.
    """
    found = connection.execute(_WRITERS).one()
    return found.oldest, found.following


def take_due(
    connection: Connection, without: Iterable[Destination], limit: int
) -> Sequence[Row[Any]]:
    """Lock rows whose next try is due, the oldest first, until the transaction ends.

    At most `MOST_DUE_BYTES` of bodies, but always one row.

    Args:
        connection: its transaction holds the locks.
        without: destinations to leave out.
        limit: the most rows.
    """
    query = select(_table.c.sequence, _SIZE.label("size")).where(
        _table.c.next_try_at <= func.clock_timestamp()
    )
    chosen: list[int] = []
    total = 0
    for row in _take(connection, query.order_by(_table.c.next_try_at), without, limit):
        total += row.size
        if chosen and total > MOST_DUE_BYTES:
            break
        chosen.append(row.sequence)
    if not chosen:
        return []
    whole = select(*_HEAD, _table.c.body).where(_table.c.sequence.in_(chosen))
    found: Sequence[Any] = connection.execute(whole.order_by(_table.c.next_try_at)).all()
    return found


def take_one_fresh(connection: Connection, destination: Destination) -> Sequence[Row[Any]]:
    """Lock the first fresh row of a destination."""
    query = select(*_HEAD, _table.c.body).where(
        _table.c.next_try_at.is_(None),
        _table.c.exchange == destination[0],
        _table.c.routing_key == destination[1],
    )
    return _take(connection, query.order_by(_table.c.sequence), (), 1)


def is_wanted(connection: Connection, destination: Destination) -> bool:
    """Whether a destination has rows other than parked ones that are not due."""
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
    """Write outcomes down and commit.

    Args:
        connection: its transaction may hold the rows' locks.
        outcome: of the rows; others stay unchanged.
    """
    if outcome.confirmed:
        connection.execute(_DELETE, _these(outcome.confirmed))
    if outcome.doubtful:
        connection.execute(_DOUBT, _with_reasons(outcome.doubtful))
    if outcome.unsent:
        connection.execute(_UNSENT, _with_reasons(outcome.unsent))
    if outcome.parked:
        waits = {"first": FIRST_WAIT, "longest": LONGEST_WAIT}
        connection.execute(_PARK, _with_reasons(outcome.parked) | waits)
    if outcome.deferred:
        connection.execute(_HOLD, _these(outcome.deferred) | {"seconds": 0})
    if outcome.held:
        connection.execute(_HOLD, _these(outcome.held) | {"seconds": LEASE_SECONDS})
    connection.commit()


def log_parked(found: Sequence[Row[Any]], outcome: Outcome) -> None:
    """Log the parked rows with their reasons."""
    for row in found:
        reason = outcome.parked.get(key(row))
        if reason is not None:
            log.error(
                "parked",
                sequence=row.sequence,
                type=row.type,
                written_by=row.written_by,
                reason=reason[:300],
            )


def key(row: Any) -> Key:
    """Return the key of a row."""
    return row[0], row[1]  # by position: see `message`


def message(row: Any) -> Message:
    """Return the message of a row."""
    # By position, in the order of `_HEAD`: by name it costs twice as much, row by row.
    _, message_id, exchange, key, type_, about, source, traceparent, time, _, mender, body = row
    if mender:  # edited by ops staff since its writer wrote it
        source = f"{MENDED_BY}{mender}"
    return Message(
        exchange, key, type_, str(message_id), bytes(body), about, time, source, traceparent
    )


def checked(row: Any) -> Message:
    """Return the message of a row, checked for publishing: any writer may have written it.

    Raises:
        ValueError: it cannot be published.
    """
    found = message(row)
    if found.time < FIRST_TIME:
        raise ValueError(f"its time is {found.time:%Y-%m-%d}, and AMQP has none before 1970")
    journal.check(found)
    return found


def unfit(error: Exception) -> str:
    """Return why a row cannot be encoded, from the exception."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _these(keys: Collection[Key]) -> dict[str, Any]:
    return {
        "sequences": "{" + ",".join([str(sequence) for sequence, _ in keys]) + "}",
        "ids": arrays.uuids(id_ for _, id_ in keys),
    }


def _with_reasons(reasons: Mapping[Key, str]) -> dict[str, Any]:
    return _these(reasons) | {"reasons": arrays.texts(reasons.values())}


_WRITERS = text("""
    SELECT CAST(CAST(pg_snapshot_xmin(now) AS text) AS bigint) AS oldest,
           CAST(CAST(pg_snapshot_xmax(now) AS text) AS bigint) AS following
    FROM pg_current_snapshot() AS now
""")
_ARRAYS = "CAST(:sequences AS bigint[]), CAST(:ids AS uuid[])"
# By the sequence first, which has an index.
_ARE_THESE = (
    "sequence = ANY(CAST(:sequences AS bigint[])) "  # noqa: S608 - our own text
    f"AND (sequence, message_id) IN (SELECT * FROM unnest({_ARRAYS}))"
)
_GIVEN = f"""
    FROM unnest({_ARRAYS}, CAST(:reasons AS text[])) AS given(sequence, id, why)
    WHERE outbox.sequence = given.sequence AND outbox.message_id = given.id
"""
_DELETE = text(f"DELETE FROM outbox WHERE {_ARE_THESE}")  # noqa: S608
_DOUBT = text(f"""
    UPDATE outbox
    SET attempts = attempts + 1, next_try_at = clock_timestamp(), reason = why, parked_at = NULL
    {_GIVEN}
""")  # noqa: S608
# Keeps `parked_at`: ops staff may edit the row meanwhile.
_UNSENT = text(f"""
    UPDATE outbox SET next_try_at = clock_timestamp(), reason = why
    {_GIVEN}
""")  # noqa: S608
_PARK = text(f"""
    UPDATE outbox
    SET attempts = attempts + 1, reason = coalesce(nullif(why, ''), 'It does not say why.'),
        parked_at = coalesce(parked_at, clock_timestamp()),
        next_try_at = clock_timestamp()
            + make_interval(secs => least(:first * power(2, least(attempts, 20)), :longest))
    {_GIVEN}
""")  # noqa: S608
# An empty reason marks a row whose confirm is awaited, which ops staff must not change. Keeps
# `parked_at`.
_HOLD = text(
    "UPDATE outbox SET reason = '', "  # noqa: S608
    f"next_try_at = clock_timestamp() + make_interval(secs => :seconds) WHERE {_ARE_THESE}"
)
