"""The counters of `order_flow` without test orders and those of the standing proof.

PostgreSQL's own counters include these rows, and lag by some seconds. So the rows are counted here
as they are seen, and subtracted; the result never falls, unless PostgreSQL's counters restart. Of
more rows than `MOST_EXAMINED` they are not counted, and the result is unknown: a business may send
any number of tests, and a snapshot is taken every two seconds.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from services.ops.monitoring.order_flow import MOST_EXAMINED, Counters
from shared.db import arrays
from shared.db.models import EMAIL_OF_TEST, Account
from shared.db.session import database_time
from shared.synthetic import LIKE

LATE = timedelta(minutes=10)
"""Orders and updates that are recorded later than that after their own time are not counted here,
and what was written within it is looked for."""
UPDATED = timedelta(days=1)
"""Updates of test orders of this age are counted, of the newest `MOST_EXAMINED`; so a look reads
ten minutes of them."""
BUSINESSES_EVERY = timedelta(minutes=1)
UNKNOWN_FOR = timedelta(seconds=121)
"""How long the result stays unknown: no growth per minute may span rows that were not counted. At
the end of a minute a count of up to a minute ago is taken (`history.flow`), so for two minutes."""


class _Counted:
    """Counts rows by the second in which they were written; of older than `LATE` only the sum.

    Rows of a second become visible at any time, and some may be deleted: its highest count counts.
    """

    def __init__(self) -> None:
        self.count = 0
        self._seconds: dict[datetime, int] = {}

    def add(self, found: Mapping[datetime, int], now: datetime) -> None:
        for second, count in found.items():
            self.count += max(0, count - self._seconds.get(second, 0))
            self._seconds[second] = max(count, self._seconds.get(second, 0))
        # A second longer than is looked for: its first rows drop out before its last.
        kept = now - LATE - timedelta(seconds=1)
        self._seconds = {at: count for at, count in self._seconds.items() if at >= kept}


class CustomerCounters:
    """Subtracts the rows of tests and of the standing proof, from one snapshot to the next."""

    def __init__(self) -> None:
        self._businesses: list[UUID] = []
        self._businesses_read_at: datetime | None = None
        self._recorded, self._emailed = _Counted(), _Counted()
        self._tests, self._test_emails = _Counted(), _Counted()
        self._last: tuple[Counters, Counters] | None = None
        self._unknown_until: datetime | None = None

    def of(self, session: Session, counters: Counters) -> Counters:
        """Return the counters of customers' orders alone; unknown if there are too many others.

        Args:
            session: the transaction in which the counters were read.
            counters: PostgreSQL's.
        """
        now = database_time(session)
        if self._businesses_read_at is None or now - self._businesses_read_at > BUSINESSES_EVERY:
            found = session.scalars(select(Account.id).where(Account.email.like(LIKE)))
            self._businesses, self._businesses_read_at = list(found), now
        looks = [(self._tests, _TESTS), (self._test_emails, _TEST_EMAILS)]
        if self._businesses:
            looks += [(self._recorded, _PROOF), (self._emailed, _PROOF_EMAILS)]
        values = {
            "since": now - LATE,
            "dated": now - 2 * LATE,
            "late": LATE,
            "updated": now - UPDATED,
            "most": MOST_EXAMINED,
            "businesses": arrays.uuids(self._businesses),
        }
        for counted, query in looks:
            rows: Sequence[Any] = session.execute(query, values).all()
            if sum(row.count for row in rows) >= MOST_EXAMINED or any(row.is_cut for row in rows):
                self._unknown_until = now + UNKNOWN_FOR
            counted.add({row.second: row.count for row in rows if row.count}, now)
        if self._unknown_until is not None and now < self._unknown_until:
            return Counters(None, None)
        return self._left(counters)

    def _left(self, counters: Counters) -> Counters:
        recorded, emailed = counters.recorded or 0, counters.emailed or 0
        left = (
            recorded - self._recorded.count - self._tests.count,
            emailed - self._emailed.count - self._test_emails.count,
        )
        if self._last is not None:
            before, last = self._last
            if recorded >= (before.recorded or 0) and emailed >= (before.emailed or 0):
                left = max(left[0], last.recorded or left[0]), max(left[1], last.emailed or left[1])
        self._last = (counters, Counters(*left))
        return self._last[1]


# Whether an entry is counted depends on nothing but itself, so a second's count only grows. Test
# orders newest first, and no more than so many: `is_cut` tells whether there were other new ones.
_TESTS = text("""
    WITH tests AS MATERIALIZED (
        SELECT id, accepted_at FROM orders WHERE is_test AND accepted_at > :updated
        ORDER BY accepted_at DESC LIMIT :most
    ), entries AS (
        SELECT recorded_at
        FROM tests JOIN order_status_history AS entry ON entry.order_id = tests.id
        WHERE at > :dated AND at > recorded_at - :late AND recorded_at > :since
        LIMIT :most
    )
    SELECT date_trunc('second', recorded_at) AS second, count(*) AS count, false AS is_cut
    FROM entries GROUP BY 1
    UNION ALL
    SELECT NULL, 0, (SELECT count(*) FROM tests WHERE accepted_at > :since) >= :most
""")
_TEST_EMAILS = text(f"""
    SELECT date_trunc('second', at) AS second, count(*) AS count, false AS is_cut
    FROM (
        SELECT at FROM email_deliveries WHERE at > :since AND {EMAIL_OF_TEST} LIMIT :most
    ) AS lately
    GROUP BY 1
""")  # noqa: S608 - a constant
_PROOF = text("""
    SELECT date_trunc('second', recorded_at) AS second, count(*) AS count, false AS is_cut
    FROM (
        SELECT recorded_at FROM orders
        WHERE account_id = ANY(CAST(:businesses AS uuid[])) AND accepted_at > :dated
          AND accepted_at > recorded_at - :late AND recorded_at > :since
        LIMIT :most
    ) AS lately
    GROUP BY 1
""")
_PROOF_EMAILS = text("""
    SELECT date_trunc('second', at) AS second, count(*) AS count, false AS is_cut
    FROM (
        SELECT at FROM email_deliveries
        WHERE at > :since AND subject_id IN (
            SELECT CAST(id AS text) FROM orders
            WHERE account_id = ANY(CAST(:businesses AS uuid[])) AND accepted_at > :dated
            UNION ALL
            SELECT CAST(id AS text) FROM unnest(CAST(:businesses AS uuid[])) AS id
        )
        LIMIT :most
    ) AS lately
    GROUP BY 1
""")
