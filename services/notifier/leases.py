"""Emails that a mail server thinks about, as other notifiers see them.

As long as a batch's transaction is open, another notifier that gets one of its facts waits at the
inbox. What is not answered in time leaves that transaction while it is on its way; from then on a
lease says so, in the same commit. Should the connection to the broker be lost, the fact comes to
another notifier, which leaves it alone for as long as the first renews the lease: a crash alone
lets it run out. No email costs a statement that is answered in time.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import arrays

SECONDS = 20.0
"""How long a lease is good for."""
RENEWED_EVERY = 5.0


def take(session: Session, facts: Collection[UUID]) -> None:
    """Hold facts, or go on holding them, for `SECONDS`."""
    if facts:
        # In one order, so that two who hold the same do not wait for each other.
        values = {"ids": arrays.uuids(sorted(facts)), "seconds": SECONDS}
        session.execute(_TAKE, values)


def end(session: Session, facts: Collection[UUID]) -> None:
    """Let facts go, and those that nobody has renewed for long."""
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
