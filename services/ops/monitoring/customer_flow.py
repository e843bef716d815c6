"""The counters of `order_flow` without test orders and those of the standing proof.

PostgreSQL's own counters include these rows, and lag by some seconds. So the rows are counted here
as they are seen, and subtracted; the result never falls, unless PostgreSQL's counters restart.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from services.ops.monitoring.order_flow import Counters
from shared.db.models import EMAIL_OF_TEST, Account, EmailDelivery, Order, OrderStatusHistory
from shared.synthetic import LIKE

LATE = timedelta(minutes=10)
"""Orders that were accepted before that are recorded and emailed, or not counted here."""
UPDATED = timedelta(days=1)
"""Updates of test orders of this age are counted, if they were made within `LATE`: so a query reads
ten minutes' worth of updates, however many tests there were in the day."""
BUSINESSES_EVERY = timedelta(minutes=1)


class _Seen:
    """Counts distinct ids; ids older than `LATE` are kept as a number only."""

    def __init__(self) -> None:
        self.count = 0
        self._recent: dict[UUID, datetime] = {}

    def add(self, ids: Iterable[UUID], now: datetime) -> None:
        for id_ in ids:
            self.count += id_ not in self._recent
            self._recent[id_] = now
        self._recent = {id_: at for id_, at in self._recent.items() if now - at < LATE}


class CustomerCounters:
    """Subtracts the rows of tests and of the standing proof, from one snapshot to the next."""

    def __init__(self) -> None:
        self._businesses: list[UUID] = []
        self._businesses_read_at: datetime | None = None
        self._recorded, self._emailed = _Seen(), _Seen()
        self._tests, self._test_emails = _Seen(), _Seen()
        self._last: tuple[Counters, Counters] | None = None

    def of(self, session: Session, counters: Counters) -> Counters:
        """Return the counters of customers' orders alone.

        Args:
            session: the transaction in which the counters were read.
            counters: PostgreSQL's.
        """
        now = datetime.now(UTC)
        if self._businesses_read_at is None or now - self._businesses_read_at > BUSINESSES_EVERY:
            found = session.scalars(select(Account.id).where(Account.email.like(LIKE)))
            self._businesses, self._businesses_read_at = list(found), now
        if self._businesses:
            orders = session.scalars(
                select(Order.id).where(
                    Order.account_id.in_(self._businesses), Order.accepted_at > now - LATE
                )
            ).all()
            subjects = [str(id_) for id_ in (*orders, *self._businesses)]
            emails = session.scalars(
                select(EmailDelivery.id).where(
                    EmailDelivery.subject_id.in_(subjects), EmailDelivery.at > now - LATE
                )
            ).all()
            self._recorded.add(orders, now)
            self._emailed.add(emails, now)
        self._add_tests(session, now)
        left = Counters(
            counters.recorded - self._recorded.count - self._tests.count,
            counters.emailed - self._emailed.count - self._test_emails.count,
        )
        if self._last is not None:
            before, last = self._last
            if counters.recorded >= before.recorded and counters.emailed >= before.emailed:
                left = Counters(max(left.recorded, last.recorded), max(left.emailed, last.emailed))
        self._last = (counters, left)
        return left

    def _add_tests(self, session: Session, now: datetime) -> None:
        tests = select(Order.id).where(~Order.is_live, Order.accepted_at > now - UPDATED)
        updates = select(OrderStatusHistory.event_id).where(
            OrderStatusHistory.order_id.in_(tests), OrderStatusHistory.at > now - LATE
        )
        self._tests.add(session.scalars(updates).all(), now)
        emails = select(EmailDelivery.id).where(EmailDelivery.at > now - LATE, text(EMAIL_OF_TEST))
        self._test_emails.add(session.scalars(emails).all(), now)
