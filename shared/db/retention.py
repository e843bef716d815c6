"""Retention rules: removes expired rows for the service that owns them, and counts them for ops.

An order is removed, whether it was placed or not, and then its history and conflicts, in pages
(`services/orders/removal`). The notes and tracking in the history of a kept order expire
earlier, because they are the sender's own text.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.config.settings import Settings
from shared.db.models import WORDS_OF_CANCELLATIONS
from shared.db.session import time_by_both_clocks
from shared.periodic import Periodic, keep_running
from shared.telemetry import metrics

SECONDS = 30.0
"""Interval between two runs."""
AT_MOST = 20_000
"""Rows of a table examined by one run, which keeps the transaction short."""


@dataclass(frozen=True, slots=True)
class Place:
    """A set of rows that expire.

    Attributes:
        name: of the setting `RETENTION_…_DAYS`, in lower case.
        owner: the service that removes the rows.
        table: that holds them, or by which they are selected.
        key: the table's UUID key column.
        candidates: a query for rows that may have expired `:before`, in the order of an index and
            after the position `:owner`, `:at`, `:id`; with a `{limit}`. It returns the key and that
            position for each row.
        over: a condition for expired rows.
        oldest: a query for the time of the oldest row.
        beside: further CTEs of the removing statement, after `gone`, which has the removed keys;
            with a `{limit}`.
        ends: the statement that replaces the default DELETE.
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
        """Return for how many days rows are kept; 0 means indefinitely."""
        kept: int = getattr(config, f"retention_{self.name}_days")
        return kept


Position = tuple[UUID, str, UUID]
"""The position of a scan: the owner's id, a time and the row's id."""
START: Position = (UUID(int=0), "-infinity", UUID(int=0))


def _beside(name: str, table: str, key: str, over: str, ends: str = "") -> str:
    """Return a CTE that removes expired rows from a further table.

    The condition is repeated for the removal itself: the same row may have been renewed meanwhile.
    """
    return f"""
        {name} AS (
            {ends or f"DELETE FROM {table}"}
            WHERE {key} IN (SELECT {key} FROM {table} WHERE {over} {{limit}}) AND {over}
        )
    """  # noqa: S608


# The accounts that have orders, by a loose index scan over the orders by account: an index by time
# alone would cost every order that is recorded.
_SENDERS = """
    WITH RECURSIVE senders AS (
        (SELECT account_id FROM orders WHERE account_id >= :owner ORDER BY account_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.account_id FROM orders o WHERE o.account_id > senders.account_id
                ORDER BY o.account_id LIMIT 1)
        FROM senders WHERE senders.account_id IS NOT NULL
    )
"""
# Their history and conflicts, of which a sender may have made any number, are removed in pages.
_ABOUT_ORDERS = (
    """
        removed AS (
            INSERT INTO removed_orders (order_id, account_id)
            SELECT id, account_id FROM orders WHERE id IN (SELECT id FROM gone)
            ON CONFLICT DO NOTHING
        )
    """,
)
ORDERS = Place(
    name="orders",
    owner="orders",
    table="orders",
    key="id",
    # By the time of recording and of the last update. Candidates are found by the sender's own
    # timestamp, which is never later but may be years earlier.
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
    """,  # noqa: S608 - constants, here and below
    over="accepted_at < :before AND status_at < :before AND recorded_at < :before",
    beside=(
        *_ABOUT_ORDERS,
        # Unplaced orders expire by the same setting. Until then the id is kept, by which the order
        # is recorded even if its invoice is paid late, and so is its cancellation.
        _beside(
            "awaited",
            "awaited_orders",
            "order_id",
            "since < :before AND coalesce(cancelled_at, since) < :before",
        ),
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
    beside=_ABOUT_ORDERS,
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


_HAS_TEXT = "(note <> '' OR tracking IS NOT NULL)"
HISTORY = replace(
    _rows("history", "orders", "order_status_history", "event_id", "at", _HAS_TEXT),
    over=f"{_HAS_TEXT} AND at < :before AND coalesce(recorded_at, at) < :before",
    ends="UPDATE order_status_history SET note = '', tracking = NULL",
    oldest=f"""
        SELECT coalesce(recorded_at, at) FROM order_status_history
        WHERE {_HAS_TEXT} ORDER BY at LIMIT 1
    """,  # noqa: S608
)
CONFLICTS = replace(
    _rows("conflicts", "orders", "order_conflicts", "event_id", "at"),
    over="at < :before AND coalesce(recorded_at, at) < :before",
    oldest="SELECT coalesce(recorded_at, at) FROM order_conflicts ORDER BY at LIMIT 1",
    # Waiting and given-up updates expire under the same setting: they belong to no recorded order
    # either. So do the cancellation reasons of orders that were never placed.
    beside=(
        _beside("updates", "waiting_updates", "event_id", "since < :before"),
        _beside(
            "reasons",
            "awaited_orders",
            "order_id",
            # By the latest cancellation: the event that places the order may follow a minute later,
            # however long the order has waited.
            f"since < :before AND cancelled_at < :before AND {WORDS_OF_CANCELLATIONS}",
            # Time and message id stay: they decide whether the cancellation applies.
            ends="""
                UPDATE awaited_orders SET cancel_reason = '', cancelled_before = (
                    SELECT jsonb_agg(jsonb_build_array(entry -> 0, entry -> 1, '') ORDER BY place)
                    FROM jsonb_array_elements(cancelled_before) WITH ORDINALITY AS a (entry, place)
                )
            """,
        ),
    ),
)
DELIVERIES = replace(
    _rows("deliveries", "notifier", "email_deliveries", "id", "at"),
    # Refused addresses expire with the deliveries; unsubscriptions do not expire.
    beside=(_beside("refused", "suppressions", "id", "cause = 'refused' AND since < :before"),),
)
UNPROVED = replace(
    _rows("unproved", "ingress", "pending_proofs", "id", "created_at"),
    # A later code uses the same row and must stay valid for the time stated in its email.
    over="created_at < :before AND code_expires_at < now()",
)
KNOWN_NETWORKS = _rows("known_networks", "ingress", "known_networks", "id", "last_used_at")
SESSIONS = replace(
    _rows("sessions", "ingress", "account_sessions", "id", "coalesce(ended_at, expires_at)"),
    # The tables of earlier versions.
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
"""Rows that expire. The request log drops whole partitions, dead-letter queues their messages."""


def before(session: Session, days: int) -> datetime:
    """Return the time before which rows have expired by both clocks, as removal is irreversible."""
    return time_by_both_clocks(session) - timedelta(days=days)


def remove(
    session: Session, place: Place, days: int, after: Position = START
) -> tuple[int, Position]:
    """Remove expired rows among the next `AT_MOST` candidates; safe beside a concurrent run.

    Not every candidate has expired, because a sender may backdate a million orders. So the next run
    continues after them instead of examining them again.

    Args:
        session: the transaction.
        place: the rows.
        days: how long they are kept; 0 means indefinitely.
        after: the position to continue from.

    Returns:
        The number of removed rows and the position for the next run: `START` after the last.
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
    """Return the number of expired rows.

    Args:
        session: reads them.
        place: the rows.
        days: how long they are kept; 0 means indefinitely, and no row expires.
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
    """Return the time of the oldest row; None if there is none."""
    found: datetime | None = session.scalar(text(place.oldest))
    return found


def jobs(owner: str, config: Settings) -> list[Periodic]:
    """Return the retention jobs of a service.

    Args:
        owner: the service.
        config: provides `retention_…_days`.
    """
    return [
        Periodic(f"retention {place.name}", SECONDS, end(place, place.days(config)))
        for place in PLACES
        if place.owner == owner
    ]


def end(place: Place, days: int) -> Callable[[Session], None]:
    """Return the function that one run of a retention job calls.

    Args:
        place: the rows.
        days: how long they are kept; 0 means indefinitely.
    """

    after = START

    def run(session: Session) -> None:
        nonlocal after
        removed, after = remove(session, place, days, after)
        metrics.kept(place.name, removed, oldest(session, place))

    return run


async def run_retention(owner: str, config: Settings) -> None:
    """Run the retention jobs of a service on the event loop until cancelled.

    Args:
        owner: the service.
        config: provides `retention_…_days`.
    """
    found = jobs(owner, config)
    await asyncio.gather(*(keep_running(job.name, job.seconds, job.once) for job in found))
