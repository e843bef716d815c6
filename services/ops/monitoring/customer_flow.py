"""The counters of `order_flow` without test orders and the standing proof's, which are nobody's.

PostgreSQL counts rows whoever they are of, and tells it some seconds late. So what those have added
is counted here, as seen; and what is left never falls, but for counters that begin anew.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.monitoring.order_flow import Counters
from shared.db.models import Account, EmailDelivery, Order, OrderStatusHistory
from shared.synthetic import LIKE, TEST

LATE = timedelta(minutes=10)
"""What was accepted longer ago is recorded and emailed, or is not counted here."""
UPDATED = timedelta(days=1)
"""For how long updates of a test order are told from others, where they are stamped `LATE` ago at
most: what is looked at is ten minutes' worth, however much is tested in a day."""
LOOK_AGAIN = timedelta(minutes=1)


class _Seen:
    """How many different ids were seen; those of long ago are no more than a number."""

    def __init__(self) -> None:
        self.count = 0
        self._recent: dict[UUID, datetime] = {}

    def add(self, ids: Iterable[UUID], now: datetime) -> None:
        for id_ in ids:
            self.count += id_ not in self._recent
            self._recent[id_] = now
        self._recent = {id_: at for id_, at in self._recent.items() if now - at < LATE}


class Others:
    """Takes tests and the proof's rows out of counters, from one look to the next."""

    def __init__(self) -> None:
        self._businesses: list[UUID] = []
        self._looked_at: datetime | None = None
        self._recorded, self._emailed = _Seen(), _Seen()
        self._tests, self._test_emails = _Seen(), _Seen()
        self._told: tuple[Counters, Counters] | None = None

    def of(self, session: Session, counters: Counters) -> Counters:
        """The counters without those.

        Args:
            session: the transaction; the counters were read in it before.
            counters: as PostgreSQL has them.
        """
        now = datetime.now(UTC)
        if self._looked_at is None or now - self._looked_at > LOOK_AGAIN:
            found = session.scalars(select(Account.id).where(Account.email.like(LIKE)))
            self._businesses, self._looked_at = list(found), now
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
        self._look_at_tests(session, now)
        left = Counters(
            counters.recorded - self._recorded.count - self._tests.count,
            counters.emailed - self._emailed.count - self._test_emails.count,
        )
        if self._told is not None:
            before, said = self._told
            if counters.recorded >= before.recorded and counters.emailed >= before.emailed:
                left = Counters(max(left.recorded, said.recorded), max(left.emailed, said.emailed))
        self._told = (counters, left)
        return left

    def _look_at_tests(self, session: Session, now: datetime) -> None:
        lately = select(Order.id).where(~Order.is_live, Order.accepted_at > now - UPDATED)
        said = select(OrderStatusHistory.event_id).where(
            OrderStatusHistory.order_id.in_(lately), OrderStatusHistory.at > now - LATE
        )
        self._tests.add(session.scalars(said).all(), now)
        emails = select(EmailDelivery.id).where(
            EmailDelivery.at > now - LATE, EmailDelivery.template.startswith(TEST, autoescape=True)
        )
        self._test_emails.add(session.scalars(emails).all(), now)
