"""The flow of orders: counts of the recorded and the emailed, latencies, refused emails.

The cost of each query is independent of the size of the tables: the counts are PostgreSQL's own
statistics, and latencies are taken from the newest emails.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.synthetic import LIKE

NEWEST = 500
MOST_EXAMINED = 50_000
"""Emails, since nearly all may be of other kinds than for new orders."""
RECENT = timedelta(days=1)
FEW, MANY = 100, 1_000
"""How many of the newest emails are examined for refusals: always the last hundred, and up to a
thousand of the last `LATELY`."""
LATELY = timedelta(minutes=30)
WINDOWS = (timedelta(seconds=10), timedelta(minutes=2), timedelta(hours=1), RECENT)


@dataclass(frozen=True, slots=True)
class Counters:
    """Rows that were ever inserted, some seconds late; None if that is unknown.

    Attributes:
        recorded: orders and their updates.
        emailed: emails.
    """

    recorded: int | None
    emailed: int | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds since an order's acceptance; None without recent orders.

    Attributes:
        recorded_p50: to its record, the median.
        recorded_p99: to its record, the 99th percentile.
        emailed_p50: to the email, the median.
        emailed_p99: to the email, the 99th percentile.
        orders: the size of the sample.
    """

    recorded_p50: float | None
    recorded_p99: float | None
    emailed_p50: float | None
    emailed_p99: float | None
    orders: int


@dataclass(frozen=True, slots=True)
class Refusals:
    """How mail servers answer our newest emails, without those of the standing proof.

    Attributes:
        tried: emails that were sent, or refused permanently by a mail server.
        refused: the refused ones.
        first: the time of the first refusal.
        last: the time of the last refusal.
        response: the most frequent answer; empty without refusals.
    """

    tried: int
    refused: int
    first: datetime | None
    last: datetime | None
    response: str


@dataclass(frozen=True, slots=True)
class Database:
    """Figures of the database server.

    Attributes:
        version: PostgreSQL's.
        connections: open connections.
        most_connections: `max_connections`.
        bytes: the size of our database.
    """

    version: str
    connections: int
    most_connections: int
    bytes: int


def counters(session: Session) -> Counters:
    """Return the counters of the session's database."""
    rows = session.execute(_COUNTERS).all()
    added = {row.relname: int(row.n_tup_ins) for row in rows}
    return Counters(added.get("order_status_history", 0), added.get("email_deliveries", 0))


def latency(session: Session) -> Latency:
    """Return the latency of the newest `NEWEST` orders of the last `RECENT`, without the proof's.

    It searches ever longer windows, so that its cost is independent of the load.
    """
    now = datetime.now(UTC)
    for window in WINDOWS:
        row = session.execute(
            _LATENCY,
            {"since": now - window, "newest": NEWEST, "proof": LIKE, "most": MOST_EXAMINED},
        ).one()
        if row.orders >= NEWEST:
            break
    recorded, emailed = row.recorded or (None, None), row.emailed or (None, None)
    return Latency(recorded[0], recorded[1], emailed[0], emailed[1], row.orders)


def refusals(session: Session) -> Refusals:
    """Return the refusals of the last `RECENT`, without emails that we chose not to send."""
    now = datetime.now(UTC)
    row = session.execute(
        _REFUSALS,
        {
            "since": now - RECENT,
            "lately": now - LATELY,
            "few": FEW,
            "many": MANY,
            "proof": LIKE,
            "most": MOST_EXAMINED,
        },
    ).one()
    return Refusals(row.tried, row.refused, row.first, row.last, row.response or "")


def database(session: Session) -> Database:
    """Return the figures of the session's database."""
    row = session.execute(_DATABASE).one()
    return Database(row.version.split()[0], row.connections, int(row.most), row.bytes)


_COUNTERS = text("""
    SELECT relname, n_tup_ins FROM pg_stat_user_tables
    WHERE schemaname = 'public' AND relname IN ('order_status_history', 'email_deliveries')
""")
_LATENCY = text("""
    WITH newest AS (
        SELECT subject_id, at FROM (
            SELECT subject_id, at, template, state, recipient FROM email_deliveries
            WHERE at > :since ORDER BY at DESC LIMIT :most
        ) AS lately
        WHERE template = 'order_received' AND state = 'sent' AND recipient NOT LIKE :proof
        ORDER BY at DESC LIMIT :newest
    ), times AS (
        SELECT extract(epoch FROM o.recorded_at - o.accepted_at)::float AS recorded,
               extract(epoch FROM newest.at - o.accepted_at)::float AS emailed
        FROM newest JOIN orders o ON o.id = newest.subject_id::uuid
    )
    SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY recorded) AS recorded,
           percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY emailed) AS emailed,
           count(*) AS orders
    FROM times
""")
# Newest first by the index on `at`, and no further than is needed.
_REFUSALS = text("""
    WITH newest AS (
        SELECT at, state, response FROM (
            SELECT at, state, response, recipient FROM email_deliveries
            WHERE at > :since ORDER BY at DESC LIMIT :most
        ) AS lately
        WHERE recipient NOT LIKE :proof
              AND (state = 'sent' OR state = 'undeliverable' AND response NOT LIKE '550 not sent:%')
        ORDER BY at DESC LIMIT :many
    ), counted AS (
        SELECT at, state <> 'sent' AS refused, response
        FROM (SELECT *, row_number() OVER (ORDER BY at DESC) AS number FROM newest) AS numbered
        WHERE number <= :few OR at > :lately
    )
    SELECT count(*) AS tried, count(*) FILTER (WHERE refused) AS refused,
           min(at) FILTER (WHERE refused) AS first, max(at) FILTER (WHERE refused) AS last,
           mode() WITHIN GROUP (ORDER BY response) FILTER (WHERE refused) AS response
    FROM counted
""")
_DATABASE = text("""
    SELECT current_setting('server_version') AS version,
           current_setting('max_connections') AS most,
           (SELECT sum(numbackends) FROM pg_stat_database)::int AS connections,
           pg_database_size(current_database()) AS bytes
""")
