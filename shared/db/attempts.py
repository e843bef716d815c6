"""Attempt limits, counted in the database and so shared by all workers and kept across restarts.

An attempt is counted before the work, in a separate transaction, and given back on success: so
concurrent guesses are all counted, whatever their outcome, without waiting for each other. Used-up
limits are cached, so that the rest of a flood costs no query.
"""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, case, delete, extract, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from shared.db.models import AttemptCount, OpsAttemptCount
from shared.db.session import independent_transaction
from shared.security.encryption import Sealer

MAX_REMEMBERED = 100_000
MOST_REMOVED = 5_000
"""Ended counts that one attempt in a hundred removes: many more than a hundred attempts add."""
REMEMBERED_SECONDS = 2.0
"""Short, because attempts may be given back: concurrent successful ones all at the same time."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400


class Limit(NamedTuple):
    """A number of attempts allowed in a window that begins with the first attempt.

    Attributes:
        kind: of the counted action.
        subject: of the action, such as a typed address; stored only within a keyed hash.
        most: allowed attempts; limits that differ only in it share one count.
        seconds: length of the window.
    """

    kind: str
    subject: str
    most: int
    seconds: int

    @property
    def written(self) -> bytes:
        """The unhashed key of the count."""
        return f"{self.kind}\0{self.seconds}\0{self.subject}".encode()


class Attempts:
    """The attempt counts of one service, in its own table.

    Args:
        table: `AttemptCount` or one like it.
        sealer: returns the sealer whose first key hashes the subjects; called at each use.
    """

    def __init__(
        self, table: type[AttemptCount | OpsAttemptCount], sealer: Callable[[], Sealer]
    ) -> None:
        self._table = table
        self._sealer = sealer
        # By key and `most`: the end of caching, and the time of the next allowed attempt.
        self._used_up: dict[tuple[bytes, int], tuple[float, float]] = {}

    def take(self, *limits: Limit) -> int:
        """Count an attempt against each limit, or against none if one of them is used up.

        Returns:
            0 if the attempt is allowed, else the seconds until the next one is.
        """
        now = time.monotonic()
        keyed = self._keyed(limits)
        used_up = [self._used_up.get((key, limit.most), (0, 0)) for key, limit in keyed.items()]
        ends = [end for until, end in used_up if until > now]
        if ends:
            return max(1, round(max(ends) - now))
        with independent_transaction() as session:
            # Sorted, so that concurrent calls with the same keys do not deadlock.
            for key in sorted(keyed):
                wait = self._count(session, key, keyed[key])
                if wait:
                    session.rollback()
                    self._remember((key, keyed[key].most), now, wait)
                    return wait
            if secrets.randbelow(100) == 0:
                ended = select(self._table.key).where(self._table.ends_at < func.clock_timestamp())
                free = ended.limit(MOST_REMOVED).with_for_update(skip_locked=True)
                session.execute(delete(self._table).where(self._table.key.in_(free)))
        return 0

    def note(self, session: Session, *limits: Limit) -> bool:
        """Count an attempt against each limit in the caller's transaction, always by the same work.

        So the duration does not reveal which limits are used up: beyond a limit, that limit is
        counted again in place of the wider ones and of the row that the caller then does not write.

        Args:
            session: the transaction.
            limits: the narrowest first.

        Returns:
            Whether the attempt is within all limits.
        """
        keys = {limit: key for key, limit in self._keyed(limits).items()}
        place, is_within = limits[0], True
        for limit in limits:
            place = limit if is_within else place
            counted = session.scalar(self._counting(keys[place], place)) or 0
            is_within = is_within and counted <= place.most
        if not is_within:
            session.execute(self._counting(keys[place], place))
        return is_within

    def count(self, session: Session, limit: Limit) -> int:
        """Return the number of attempts counted in the current window of a limit."""
        (key,) = self._keyed([limit])
        counted = select(self._table.count).where(
            self._table.key == key, self._table.ends_at > func.clock_timestamp()
        )
        return session.scalar(counted) or 0

    def give_back(self, *limits: Limit) -> None:
        """Uncount a successful attempt, in a separate transaction."""
        with independent_transaction() as session:
            for key in sorted(self._keyed(limits)):
                session.execute(
                    update(self._table)
                    .where(self._table.key == key, self._table.count > 0)
                    .values(count=self._table.count - 1)
                )

    def _keyed(self, limits: Sequence[Limit]) -> Mapping[bytes, Limit]:
        sealer = self._sealer()
        return {sealer.pseudonym(limit.written): limit for limit in limits}

    def _counting(
        self, key: bytes, limit: Limit, only: ColumnElement[bool] | None = None
    ) -> ReturningInsert[int]:
        # In an open window it counts only if `only` holds, and otherwise returns no row.
        table, now = self._table, func.clock_timestamp()
        fresh = {"count": 1, "ends_at": now + timedelta(seconds=limit.seconds)}
        has_ended = table.ends_at <= now
        return (
            insert(table)
            .values(key=key, **fresh)
            .on_conflict_do_update(
                index_elements=[table.key],
                set_={
                    "count": case((has_ended, 1), else_=table.count + 1),
                    "ends_at": case((has_ended, fresh["ends_at"]), else_=table.ends_at),
                },
                where=None if only is None else has_ended | only,
            )
            .returning(table.count)
        )

    def _count(self, session: Session, key: bytes, limit: Limit) -> int:
        table, now = self._table, func.clock_timestamp()
        counted = session.scalar(self._counting(key, limit, table.count < limit.most))
        if counted is not None:
            return 0
        left = extract("epoch", table.ends_at - now)
        return max(1, round(session.scalar(select(left).where(table.key == key)) or 0))

    def _remember(self, key: tuple[bytes, int], now: float, wait: int) -> None:
        if len(self._used_up) >= MAX_REMEMBERED:
            self._used_up.clear()
        self._used_up[key] = now + min(wait, REMEMBERED_SECONDS), now + wait
