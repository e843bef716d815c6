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

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.config.settings import Settings
from shared.db.session import database_time
from shared.periodic import Periodic, keep_running
from shared.telemetry import metrics

SECONDS = 30.0
"""From one run to the next."""
AT_MOST = 20_000
"""Rows of a place in one run, so that no transaction is long."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is that ends.

    Attributes:
        name: as the setting `RETENTION_…_DAYS` has it, in small letters.
        owner: the service that removes it.
        due: a query for the keys of what is over `:before`, with a place for a limit and locks.
        remove: a statement that ends what the query `due` has found, and counts it.
        oldest: a query for the time of the oldest.
    """

    name: str
    owner: str
    due: str
    remove: str
    oldest: str

    def days(self, config: Settings) -> int:
        """For how many days it is kept; 0 is for ever."""
        kept: int = getattr(config, f"retention_{self.name}_days")
        return kept


# The accounts that have orders, hopping over the index of orders by account: an index by time alone
# would be paid for by every order that is recorded.
_SENDERS = """
    WITH RECURSIVE senders AS (
        (SELECT account_id FROM orders ORDER BY account_id LIMIT 1)
        UNION ALL
        SELECT (SELECT o.account_id FROM orders o WHERE o.account_id > senders.account_id
                ORDER BY o.account_id LIMIT 1)
        FROM senders WHERE senders.account_id IS NOT NULL
    )
"""
ORDERS = Place(
    name="orders",
    owner="orders",
    # By when it was recorded and when its sender last said something of it. The sender's own stamp,
    # which is never later, finds the candidates; it may lie years back.
    due=f"""
        {_SENDERS}
        SELECT old.id FROM senders CROSS JOIN LATERAL (
            SELECT id FROM orders
            WHERE account_id = senders.account_id AND accepted_at < :before
              AND status_at < :before AND recorded_at < :before
            ORDER BY accepted_at {{bounded}}
        ) AS old {{limit}}
    """,  # noqa: S608 - our own names, here and below
    remove="""
        WITH due AS MATERIALIZED ({due}),
        gone AS (DELETE FROM orders WHERE id IN (SELECT id FROM due) RETURNING id),
        history AS (
            DELETE FROM order_status_history WHERE order_id IN (SELECT id FROM gone)
        ),
        conflicts AS (DELETE FROM order_conflicts WHERE order_id IN (SELECT id FROM gone))
        SELECT count(*) FROM gone
    """,
    oldest=f"""
        {_SENDERS}
        SELECT min(old.recorded_at) FROM senders CROSS JOIN LATERAL (
            SELECT recorded_at FROM orders WHERE account_id = senders.account_id
            ORDER BY accepted_at LIMIT 1
        ) AS old
    """,  # noqa: S608
)
TEST_ORDERS = replace(
    ORDERS,
    name="test_orders",
    due="""
        SELECT id FROM orders WHERE is_test AND accepted_at < :before AND status_at < :before
          AND recorded_at < :before {bounded}
    """,
    oldest="SELECT min(recorded_at) FROM orders WHERE is_test",
)
HISTORY = Place(
    name="history",
    owner="orders",
    due="""
        SELECT event_id FROM order_status_history
        WHERE (note <> '' OR tracking IS NOT NULL) AND at < :before
          AND coalesce(recorded_at, at) < :before
        ORDER BY at {bounded}
    """,
    remove="""
        WITH due AS MATERIALIZED ({due}),
        gone AS (
            UPDATE order_status_history SET note = '', tracking = NULL
            WHERE event_id IN (SELECT event_id FROM due) RETURNING event_id
        )
        SELECT count(*) FROM gone
    """,
    oldest="""
        SELECT coalesce(recorded_at, at) FROM order_status_history
        WHERE note <> '' OR tracking IS NOT NULL ORDER BY at LIMIT 1
    """,
)


def _rows(name: str, owner: str, table: str, key: str, since: str) -> Place:
    return Place(
        name=name,
        owner=owner,
        due=f"SELECT {key} FROM {table} WHERE {since} < :before "  # noqa: S608
        f"ORDER BY {since} {{bounded}}",
        remove=f"""
            WITH due AS MATERIALIZED ({{due}}),
            gone AS (
                DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM due) RETURNING {key}
            )
            SELECT count(*) FROM gone
        """,  # noqa: S608
        oldest=f"SELECT min({since}) FROM {table}",  # noqa: S608
    )


CONFLICTS = replace(
    _rows("conflicts", "orders", "order_conflicts", "event_id", "at"),
    due="""
        SELECT event_id FROM order_conflicts
        WHERE at < :before AND coalesce(recorded_at, at) < :before
        ORDER BY at {bounded}
    """,
    oldest="SELECT coalesce(recorded_at, at) FROM order_conflicts ORDER BY at LIMIT 1",
    # Updates that wait or were given up end with them: they are of the same kind, and nobody's.
    remove="""
        WITH due AS MATERIALIZED ({due}),
        gone AS (
            DELETE FROM order_conflicts WHERE event_id IN (SELECT event_id FROM due)
            RETURNING event_id
        ),
        updates AS (DELETE FROM waiting_updates WHERE since < :before)
        SELECT count(*) FROM gone
    """,
)
DELIVERIES = replace(
    _rows("deliveries", "notifier", "email_deliveries", "id", "at"),
    # What the mail server has said of an address ends with them. Who has left stays so.
    remove="""
        WITH due AS MATERIALIZED ({due}),
        gone AS (
            DELETE FROM email_deliveries WHERE id IN (SELECT id FROM due) RETURNING id
        ),
        refused AS (DELETE FROM suppressions WHERE cause = 'refused' AND since < :before)
        SELECT count(*) FROM gone
    """,
)
UNPROVED = replace(
    _rows("unproved", "ingress", "pending_proofs", "id", "created_at"),
    # A later code waits in the same row, and is good for as long as its email says.
    due="""
        SELECT id FROM pending_proofs WHERE created_at < :before AND code_expires_at < now()
        ORDER BY created_at {bounded}
    """,
)

PLACES = (ORDERS, TEST_ORDERS, HISTORY, CONFLICTS, DELIVERIES, UNPROVED)
"""The places that lose rows. The request log loses its days, and dead queues their letters."""


def before(session: Session, days: int) -> datetime:
    """What is older is over: by the database's clock, since what is removed does not come back."""
    return database_time(session) - timedelta(days=days)


def remove(session: Session, place: Place, days: int) -> int:
    """Remove some of what is over; safe beside another run of the same.

    Args:
        session: the transaction.
        place: where.
        days: for how long it is kept; 0 is for ever.

    Returns:
        How much was removed, at most `AT_MOST`.
    """
    if not days:
        return 0
    bounded = f"LIMIT {AT_MOST} FOR UPDATE SKIP LOCKED"
    due = place.due.format(bounded=bounded, limit=f"LIMIT {AT_MOST}")
    found = session.scalar(text(place.remove.format(due=due)), {"before": before(session, days)})
    return int(found or 0)


def count(session: Session, place: Place, days: int) -> int:
    """How much is over; 0 where it is kept for ever.

    Args:
        session: to read by.
        place: where.
        days: for how long it is kept.
    """
    if not days:
        return 0
    due = place.due.format(bounded="", limit="")
    query = text(f"SELECT count(*) FROM ({due}) AS due")  # noqa: S608
    return int(session.scalar(query, {"before": before(session, days)}) or 0)


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

    def run(session: Session) -> None:
        metrics.kept(place.name, remove(session, place, days), oldest(session, place))

    return run


async def keep_ending(owner: str, config: Settings) -> None:
    """Run the jobs of a service until cancelled, for a process that runs on a loop.

    Args:
        owner: the service.
        config: see `jobs`.
    """
    found = jobs(owner, config)
    await asyncio.gather(*(keep_running(job.name, job.seconds, job.once) for job in found))
