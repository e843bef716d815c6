"""Leases of emails whose reply from the mail server is pending, for other notifiers to see.

While a batch's transaction is open, another notifier with one of its facts waits at the inbox. An
email without a reply in time outlives that transaction; its lease begins in the same commit. If the
connection to the broker is lost, the fact comes to another notifier, which leaves it alone while
the first renews the lease. Nobody can renew while the database is away, so a lease that has run out
ends only once it was seen so for `SECONDS`. An email with a reply in time costs no statement.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import arrays

SECONDS = 20.0
"""The validity of a lease."""
RENEWED_EVERY = 5.0


def take(session: Session, facts: Collection[UUID]) -> None:
    """Create or renew the leases of facts."""
    if facts:
        # Sorted, so that two notifiers with the same facts do not deadlock.
        values = {"ids": arrays.uuids(sorted(facts)), "seconds": SECONDS}
        session.execute(_TAKE, values)


def end(session: Session, facts: Collection[UUID]) -> None:
    """End the leases of facts, and those that ran out more than a day ago."""
    if facts:
        session.execute(_END, {"ids": arrays.uuids(sorted(facts))})


_TAKE = text("""
    INSERT INTO email_leases (fact_id, good_until)
    SELECT fact_id, clock_timestamp() + make_interval(secs => :seconds)
    FROM unnest(CAST(:ids AS uuid[])) AS given (fact_id)
    ON CONFLICT (fact_id) DO UPDATE SET good_until = excluded.good_until
""")
_END = text("""
    DELETE FROM email_leases
    WHERE fact_id = ANY(CAST(:ids AS uuid[])) OR good_until < clock_timestamp() - interval '1 day'
""")
