"""How orders flow: what came in, was recorded and was emailed, and how long it took.

Every query here costs the same whatever the tables hold: the counters are those that PostgreSQL
keeps of each table anyway, and times are taken from the newest emails.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.synthetic import LIKE

NEWEST = 500
RECENT = timedelta(days=1)
WINDOWS = (timedelta(seconds=10), timedelta(minutes=2), timedelta(hours=1), RECENT)


@dataclass(frozen=True, slots=True)
class Counters:
    """Rows that were ever added, up to some seconds ago.

    Attributes:
        recorded: orders and their updates.
        emailed: emails.
    """

    recorded: int
    emailed: int


@dataclass(frozen=True, slots=True)
class Latency:
    """From an order's acceptance, in seconds; None while there is nothing recent to go by.

    Attributes:
        recorded_p50: to its record, half of them.
        recorded_p99: to its record, all but a hundredth.
        emailed_p50: to the email, half of them.
        emailed_p99: to the email, all but a hundredth.
        orders: how many it is taken from.
    """

    recorded_p50: float | None
    recorded_p99: float | None
    emailed_p50: float | None
    emailed_p99: float | None
    orders: int


@dataclass(frozen=True, slots=True)
class Database:
    """How the database is.

    Attributes:
        version: PostgreSQL's.
        connections: how many it has.
        most_connections: how many it can have.
        bytes: how large ours is.
    """

    version: str
    connections: int
    most_connections: int
    bytes: int


def counters(session: Session) -> Counters:
    """Of the database that the session is in."""
    rows = session.execute(_COUNTERS).all()
    added = {row.relname: int(row.n_tup_ins) for row in rows}
    return Counters(added.get("order_status_history", 0), added.get("email_deliveries", 0))


def latency(session: Session) -> Latency:
    """Of the newest `NEWEST` orders of others than the standing proof's, of the last `RECENT`.

    Looked for in ever longer windows, so that it costs the same whatever the load is.
    """
    now = datetime.now(UTC)
    for window in WINDOWS:
        row = session.execute(
            _LATENCY, {"since": now - window, "newest": NEWEST, "proof": LIKE}
        ).one()
        if row.orders >= NEWEST:
            break
    recorded, emailed = row.recorded or (None, None), row.emailed or (None, None)
    return Latency(recorded[0], recorded[1], emailed[0], emailed[1], row.orders)


def database(session: Session) -> Database:
    """How the database is that the session is in."""
    row = session.execute(_DATABASE).one()
    return Database(row.version.split()[0], row.connections, int(row.most), row.bytes)


_COUNTERS = text("""
    SELECT relname, n_tup_ins FROM pg_stat_user_tables
    WHERE schemaname = 'public' AND relname IN ('order_status_history', 'email_deliveries')
""")
_LATENCY = text("""
    WITH newest AS (
        SELECT subject_id, at FROM email_deliveries
        WHERE at > :since AND template = 'order_received' AND state = 'sent'
              AND recipient NOT LIKE :proof
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
_DATABASE = text("""
    SELECT current_setting('server_version') AS version,
           current_setting('max_connections') AS most,
           (SELECT sum(numbackends) FROM pg_stat_database)::int AS connections,
           pg_database_size(current_database()) AS bytes
""")
