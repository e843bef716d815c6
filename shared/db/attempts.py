"""How often something may be tried, counted in the database: for all workers, whoever restarts.

A count is taken before the work and in a transaction of its own, and so it is given back: a flood
of guesses waits for nobody, and each is counted whatever becomes of it. What is used up is
remembered here, so that the rest of a flood costs no query.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import case, delete, extract, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.models import AttemptCount, OpsAttemptCount
from shared.db.session import transaction_amid
from shared.security.encryption import Sealer

MAX_REMEMBERED = 100_000
REMEMBERED_SECONDS = 2.0
"""No longer, since what is used up may be given back: by those who were right, all at once."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400


class Limit(NamedTuple):
    """At most so many in so many seconds, from the first on.

    Attributes:
        kind: what is counted.
        subject: whose, as somebody typed it; stored only as a part of a hash under a key.
        most: how many; one count may have several, so that some are let further than others.
        seconds: in how long.
    """

    kind: str
    subject: str
    most: int
    seconds: int

    @property
    def written(self) -> bytes:
        """What it is counted under, in the clear."""
        return f"{self.kind}\0{self.seconds}\0{self.subject}".encode()


class Attempts:
    """The counts of one service, in a table that is its own.

    Args:
        table: `AttemptCount` or one like it.
        sealer: its first key hides what is counted; called only when there is something to count.
    """

    def __init__(
        self, table: type[AttemptCount | OpsAttemptCount], sealer: Callable[[], Sealer]
    ) -> None:
        self._table = table
        self._sealer = sealer
        # Until when it is remembered, and when it may be tried again.
        self._used_up: dict[tuple[bytes, int], tuple[float, float]] = {}

    def take(self, *limits: Limit) -> int:
        """Count one against each limit; against none, where one of them is used up.

        Returns:
            0, or the seconds until it may be tried again.
        """
        now = time.monotonic()
        keyed = self._keyed(limits)
        used_up = [self._used_up.get((key, limit.most), (0, 0)) for key, limit in keyed.items()]
        ends = [end for until, end in used_up if until > now]
        if ends:
            return max(1, round(max(ends) - now))
        with transaction_amid() as session:
            # In one order, so that two that count the same things do not wait for each other.
            for key in sorted(keyed):
                wait = self._count(session, key, keyed[key])
                if wait:
                    session.rollback()
                    self._remember((key, keyed[key].most), now, wait)
                    return wait
            if secrets.randbelow(100) == 0:
                over = select(self._table.key).where(self._table.ends_at < func.clock_timestamp())
                free = over.with_for_update(skip_locked=True)
                session.execute(delete(self._table).where(self._table.key.in_(free)))
        return 0

    def count(self, session: Session, limit: Limit) -> int:
        """How many count against a limit now."""
        (key,) = self._keyed([limit])
        counted = select(self._table.count).where(
            self._table.key == key, self._table.ends_at > func.clock_timestamp()
        )
        return session.scalar(counted) or 0

    def give_back(self, *limits: Limit) -> None:
        """What was tried succeeded, so it does not count; whatever becomes of the rest."""
        with transaction_amid() as session:
            for key in sorted(self._keyed(limits)):
                session.execute(
                    update(self._table)
                    .where(self._table.key == key, self._table.count > 0)
                    .values(count=self._table.count - 1)
                )

    def _keyed(self, limits: Sequence[Limit]) -> Mapping[bytes, Limit]:
        sealer = self._sealer()
        return {sealer.pseudonym(limit.written): limit for limit in limits}

    def _count(self, session: Session, key: bytes, limit: Limit) -> int:
        table, now = self._table, func.clock_timestamp()
        fresh = {"count": 1, "ends_at": now + timedelta(seconds=limit.seconds)}
        is_over = table.ends_at <= now
        counted = session.scalar(
            insert(table)
            .values(key=key, **fresh)
            .on_conflict_do_update(
                index_elements=[table.key],
                set_={
                    "count": case((is_over, 1), else_=table.count + 1),
                    "ends_at": case((is_over, fresh["ends_at"]), else_=table.ends_at),
                },
                where=is_over | (table.count < limit.most),
            )
            .returning(table.count)
        )
        if counted is not None:
            return 0
        left = extract("epoch", table.ends_at - now)
        return max(1, round(session.scalar(select(left).where(table.key == key)) or 0))

    def _remember(self, key: tuple[bytes, int], now: float, wait: int) -> None:
        if len(self._used_up) >= MAX_REMEMBERED:
            self._used_up.clear()
        self._used_up[key] = now + min(wait, REMEMBERED_SECONDS), now + wait
