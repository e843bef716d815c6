"""What is removed when its time is over: each place once, for the service that owns it and for
whoever counts what would go.

An order goes with its history and conflicts, since they are about it. Of the history of an order
that stays, the notes and where the parcel was to be followed end earlier: they are what a sender
wrote, and the rest is what became of it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.config.settings import Settings
from shared.db.session import time_by_both_clocks
from shared.periodic import Periodic, keep_running
from shared.telemetry import metrics

SECONDS = 30.0
"""From one run to the next."""
AT_MOST = 20_000
"""Rows of a table that one run looks at, so that no transaction is long."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is that ends.

    Attributes:
        name: as the setting `RETENTION_…_DAYS` has it, in small letters.
        owner: the service that removes it.
        table: where its rows are, or those that it is told by.
        key: the table's, a UUID.
        candidates: a query for what may be over `:before`, in the order of an index and behind
            the place that `:owner`, `:at` and `:id` name; with a place for a limit. It gives the
            key, and the three for each row.
        over: a condition for what is over.
        oldest: a query for the time of the oldest.
        beside: further parts of the statement that ends the rows, after `gone`, which has their
            keys; with a place for a limit.
        ends: what ends them, where they are not deleted.
    """

    name: str
    owner: str
    table: str
    key: str
    candidates: str
    over: str
    oldest: str
    beside: tuple[str, ...] = ()
    ends: str = ""

    def days(self, config: Settings) -> int:
        """For how many days it is kept; 0 is for ever."""
        kept: int = getattr(config, f"retention_{self.name}_days")
        return kept


Position = tuple[UUID, str, UUID]
"""How far a place was looked through: the owner's id, a time and the row's id."""
START: Position = (UUID(int=0), "-infinity", UUID(int=0))

# The accounts that have orders, hopping over the index of orders by account: an index by time alone
# would be paid for by every order that is recorded.
_SENDERS = """
    WITH RECURSIVE senders AS (
        (SELECT account_id FROM orders WHERE account_id >= :owner ORDER BY account_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.account_id FROM orders o WHERE o.account_id > senders.account_id
                ORDER BY o.account_id LIMIT 1)
        FROM senders WHERE senders.account_id IS NOT NULL
    )
"""
ORDERS = Place(
    name="orders",
    owner="orders",
    table="orders",
    key="id",
    # By when it was recorded and when its sender last said something of it. The sender's own stamp,
    # which is never later, finds the candidates; it may lie years back.
    candidates=f"""
        {_SENDERS}
        SELECT old.id AS key, senders.account_id AS owner, old.accepted_at AS at, old.id
        FROM senders CROSS JOIN LATERAL (
            SELECT id, accepted_at FROM orders
            WHERE account_id = senders.account_id AND accepted_at < :before
              AND (accepted_at, id) > (
                  CASE WHEN senders.account_id = :owner THEN :at
                       ELSE CAST('-infinity' AS timestamptz) END,
                  CASE WHEN senders.account_id = :owner THEN :id
                       ELSE CAST('00000000-0000-0000-0000-000000000000' AS uuid) END
              )
            ORDER BY accepted_at, id {{limit}}
        ) AS old {{limit}}
    """,  # noqa: S608 - our own names, here and below
    over="accepted_at < :before AND status_at < :before AND recorded_at < :before",
    beside=(
        "history AS (DELETE FROM order_status_history WHERE order_id IN (SELECT id FROM gone))",
        "conflicts AS (DELETE FROM order_conflicts WHERE order_id IN (SELECT id FROM gone))",
    ),
    oldest=f"""
        {_SENDERS.replace("WHERE account_id >= :owner", "")}
        SELECT min(old.recorded_at) FROM senders CROSS JOIN LATERAL (
            SELECT recorded_at FROM orders WHERE account_id = senders.account_id
            ORDER BY accepted_at LIMIT 1
        ) AS old
    """,  # noqa: S608
)
TEST_ORDERS = replace(
    ORDERS,
    name="test_orders",
    candidates="""
        SELECT id AS key, account_id AS owner, accepted_at AS at, id FROM orders
        WHERE is_test AND accepted_at < :before
          AND (account_id, accepted_at, id) > (:owner, :at, :id)
        ORDER BY account_id, accepted_at, id {limit}
    """,
    oldest="SELECT min(recorded_at) FROM orders WHERE is_test",
)


def _rows(name: str, owner: str, table: str, key: str, since: str, only: str = "true") -> Place:
    return Place(
        name=name,
        owner=owner,
        table=table,
        key=key,
        candidates=f"""
            SELECT {key} AS key, CAST(:owner AS uuid) AS owner, {since} AS at, {key} AS id
            FROM {table} WHERE {only} AND {since} < :before AND ({since}, {key}) > (:at, :id)
            ORDER BY {since}, {key} {{limit}}
        """,  # noqa: S608
        over=f"{only} AND {since} < :before",
        oldest=f"SELECT min({since}) FROM {table}",  # noqa: S608
    )


def _beside(name: str, table: str, key: str, over: str) -> str:
    """A part of a statement that ends what is over in a table beside a place's.

    It is looked at once more when it is removed: somebody may have begun anew in the same row.
    """
    return f"""
        {name} AS (
            DELETE FROM {table}
            WHERE {key} IN (SELECT {key} FROM {table} WHERE {over} {{limit}}) AND {over}
        )
    """  # noqa: S608


_SAID = "(note <> '' OR tracking IS NOT NULL)"
HISTORY = replace(
    _rows("history", "orders", "order_status_history", "event_id", "at", _SAID),
    over=f"{_SAID} AND at < :before AND coalesce(recorded_at, at) < :before",
    ends="UPDATE order_status_history SET note = '', tracking = NULL",
    oldest=f"""
        SELECT coalesce(recorded_at, at) FROM order_status_history
        WHERE {_SAID} ORDER BY at LIMIT 1
    """,  # noqa: S608
)
CONFLICTS = replace(
    _rows("conflicts", "orders", "order_conflicts", "event_id", "at"),
    over="at < :before AND coalesce(recorded_at, at) < :before",
    oldest="SELECT coalesce(recorded_at, at) FROM order_conflicts ORDER BY at LIMIT 1",
    # Updates that wait or were given up end with them, and orders that were never placed: they are
    # of the same kind, and nobody's.
    beside=(
        _beside("updates", "waiting_updates", "event_id", "since < :before"),
        _beside("awaited", "awaited_orders", "order_id", "since < :before"),
    ),
)
DELIVERIES = replace(
    _rows("deliveries", "notifier", "email_deliveries", "id", "at"),
    # What the mail server has said of an address ends with them. Who has left stays so.
    beside=(_beside("refused", "suppressions", "id", "cause = 'refused' AND since < :before"),),
)
UNPROVED = replace(
    _rows("unproved", "ingress", "pending_proofs", "id", "created_at"),
    # A later code waits in the same row, and is good for as long as its email says.
    over="created_at < :before AND code_expires_at < now()",
)
KNOWN_NETWORKS = _rows("known_networks", "ingress", "known_networks", "id", "last_used_at")
SESSIONS = replace(
    _rows("sessions", "ingress", "account_sessions", "id", "coalesce(ended_at, expires_at)"),
    # What the versions before had in their place.
    beside=(
        _beside("tokens", "revoked_tokens", "token_id", "expires_at < :before"),
        _beside("codes", "one_time_codes", "account_id", "expires_at < :before"),
    ),
)

PLACES = (
    ORDERS,
    TEST_ORDERS,
    HISTORY,
    CONFLICTS,
    DELIVERIES,
    UNPROVED,
    KNOWN_NETWORKS,
    SESSIONS,
)
"""The places that lose rows. The request log loses its days, and dead queues their letters."""


def before(session: Session, days: int) -> datetime:
    """What is older is over, by both clocks, since what is removed does not come back."""
    return time_by_both_clocks(session) - timedelta(days=days)


def remove(
    session: Session, place: Place, days: int, after: Position = START
) -> tuple[int, Position]:
    """Remove some of what is over; safe beside another run of the same.

    Looked at are `AT_MOST` rows. Not all that may be over is: a sender may date a million orders
    back. So the next run goes on behind them, and does not look at them all again each time.

    Args:
        session: the transaction.
        place: where.
        days: for how long it is kept; 0 is for ever.
        after: where to go on.

    Returns:
        How much was removed, and where the next run is to go on: `START` after the last.
    """
    if not days:
        return 0, START
    limit = f"LIMIT {AT_MOST}"
    gone = f"""gone AS (
            {place.ends or f"DELETE FROM {place.table}"}
            WHERE {place.key} IN (SELECT {place.key} FROM due) RETURNING {place.key}
        )"""  # noqa: S608
    statement = f"""
        WITH seen AS MATERIALIZED ({place.candidates.format(limit=limit)}),
        due AS MATERIALIZED (
            SELECT {place.key} FROM {place.table}
            WHERE {place.key} IN (SELECT key FROM seen) AND {place.over}
            FOR UPDATE SKIP LOCKED
        ),
        {", ".join((gone, *place.beside)).format(limit=limit)}
        SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM seen) AS seen,
               last.owner, CAST(last.at AS text) AS at, last.id
        FROM (VALUES (0)) AS one
        LEFT JOIN (SELECT * FROM seen ORDER BY owner DESC, at DESC, id DESC LIMIT 1) AS last ON true
    """  # noqa: S608
    values = _values(session, days, after)
    found = session.execute(text(statement), values).one()
    next_ = (found.owner, found.at, found.id) if found.seen == AT_MOST else START
    return found.gone, next_


def count(session: Session, place: Place, days: int) -> int:
    """How much is over; 0 where it is kept for ever.

    Args:
        session: to read by.
        place: where.
        days: for how long it is kept.
    """
    if not days:
        return 0
    query = f"""
        WITH seen AS MATERIALIZED ({place.candidates.format(limit="")})
        SELECT count(*) FROM {place.table}
        WHERE {place.key} IN (SELECT key FROM seen) AND {place.over}
    """  # noqa: S608
    return int(session.scalar(text(query), _values(session, days, START)) or 0)


def _values(session: Session, days: int, after: Position) -> dict[str, object]:
    owner, at, id_ = after
    return {"before": before(session, days), "owner": str(owner), "at": at, "id": str(id_)}


def oldest(session: Session, place: Place) -> datetime | None:
    """When the oldest was; None when there is none."""
    found: datetime | None = session.scalar(text(place.oldest))
    return found


def jobs(owner: str, config: Settings) -> list[Periodic]:
    """The jobs of a service that end what is its own.

    Args:
        owner: the service.
        config: `retention_…_days` count.
    """
    return [
        Periodic(f"retention {place.name}", SECONDS, end(place, place.days(config)))
        for place in PLACES
        if place.owner == owner
    ]


def end(place: Place, days: int) -> Callable[[Session], None]:
    """What one run of a place's job does.

    Args:
        place: where.
        days: for how long it is kept; 0 is for ever.
    """

    after = START

    def run(session: Session) -> None:
        nonlocal after
        removed, after = remove(session, place, days, after)
        metrics.kept(place.name, removed, oldest(session, place))

    return run


async def keep_ending(owner: str, config: Settings) -> None:
    """Run the jobs of a service until cancelled, for a process that runs on a loop.

    Args:
        owner: the service.
        config: see `jobs`.
    """
    found = jobs(owner, config)
    await asyncio.gather(*(keep_running(job.name, job.seconds, job.once) for job in found))
