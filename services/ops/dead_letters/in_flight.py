"""Rehearsals under way: each makes a service work, and whoever may look may ask for one.

Bounded for all consoles and commands together, by advisory locks of PostgreSQL's, which end with
their connection, and so with their process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, select

from services.ops.audit.actions import Actor
from services.ops.broker.queue_lock import lock_key

MOST = 3
"""At once, of everybody. A console has eight threads for all that its users ask."""


class BusyError(Exception):
    """One more may not begin now; the message says why."""


@contextmanager
def one_more(engine: Engine, actor: Actor) -> Iterator[None]:
    """Be one of the rehearsals under way, for as long as the context lasts.

    Args:
        engine: of the database where tools meet.
        actor: whose it is; everybody has one at a time.

    Raises:
        BusyError: see there.
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            if not _take(connection, f"ops rehearsal of {actor.name}"):
                raise BusyError(f"A rehearsal of {actor.name}'s is under way: wait for its answer.")
            if not any(_take(connection, f"ops rehearsal {n}") for n in range(MOST)):
                raise BusyError(
                    f"{MOST} rehearsals are under way, as many as may be at once: "
                    "try again in a moment."
                )
            yield
        finally:
            # Of this session alone; the pool gives its connection to somebody else.
            connection.execute(select(func.pg_advisory_unlock_all()))


def _take(connection: Connection, name: str) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_lock(lock_key(name)))))
