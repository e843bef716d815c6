"""How often something may be tried, counted in the database: for all workers, whoever restarts.

A count is taken before the work and in a transaction of its own, so that a flood of guesses waits
for nobody and each is counted whatever becomes of it. What is used up is remembered here, so that
the rest of a flood costs no query.
"""

import hashlib
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.db.models import AttemptCount
from shared.db.session import transaction

MAX_REMEMBERED = 100_000
REMEMBERED_SECONDS = 2.0
"""No longer, since what is used up may be given back: by those who were right, all at once."""
MINUTE, HOUR, DAY = 60, 3_600, 86_400

_used_up: dict[bytes, float] = {}


class Limit(NamedTuple):
    """At most so many in so many seconds, from the first on.

    Attributes:
        kind: what is counted.
        subject: whose; an address is stored only as a part of a hash.
        most: how many.
        seconds: in how long.
    """

    kind: str
    subject: str
    most: int
    seconds: int

    @property
    def key(self) -> bytes:
        """What it is counted under."""
        return hashlib.sha256(f"{self.kind}\0{self.seconds}\0{self.subject}".encode()).digest()


def take(*limits: Limit) -> int:
    """Count one against each limit; against none, where one of them is used up.

    Returns:
        0, or the seconds until it may be tried again.
    """
    now = time.monotonic()
    wait = max((_used_up.get(limit.key, 0) - now for limit in limits), default=0.0)
    if wait > 0:
        return max(1, round(wait))
    with transaction() as session:
        # In one order, so that two that count the same things do not wait for each other.
        for limit in sorted(limits, key=lambda limit: limit.key):
            wait = _count(session, limit)
            if wait:
                session.rollback()
                _remember(limit.key, now + min(wait, REMEMBERED_SECONDS))
                return wait
        if secrets.randbelow(100) == 0:
            session.execute(delete(AttemptCount).where(AttemptCount.ends_at < datetime.now(UTC)))
    return 0


def give_back(session: Session, *limits: Limit) -> None:
    """What was tried succeeded, so it does not count."""
    session.execute(
        update(AttemptCount)
        .where(AttemptCount.key.in_([limit.key for limit in limits]), AttemptCount.count > 0)
        .values(count=AttemptCount.count - 1)
    )


def _count(session: Session, limit: Limit) -> int:
    now = datetime.now(UTC)
    fresh = {"count": 1, "ends_at": now + timedelta(seconds=limit.seconds)}
    is_over = AttemptCount.ends_at <= now
    counted = session.scalar(
        insert(AttemptCount)
        .values(key=limit.key, **fresh)
        .on_conflict_do_update(
            index_elements=[AttemptCount.key],
            set_={
                "count": case((is_over, 1), else_=AttemptCount.count + 1),
                "ends_at": case((is_over, fresh["ends_at"]), else_=AttemptCount.ends_at),
            },
            where=is_over | (AttemptCount.count < limit.most),
        )
        .returning(AttemptCount.count)
    )
    if counted is not None:
        return 0
    ends_at = session.scalar(select(AttemptCount.ends_at).where(AttemptCount.key == limit.key))
    return max(1, round((ends_at - now).total_seconds())) if ends_at else 1


def _remember(key: bytes, until: float) -> None:
    if len(_used_up) >= MAX_REMEMBERED:
        _used_up.clear()
    _used_up[key] = until
