"""Limits the rehearsals in progress: each occupies a service, and every console user may start one.

The limit holds for all consoles and commands together, by PostgreSQL advisory locks, which end with
their connection, and so with their process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, func, select

from services.ops.audit.actions import Actor
from shared.db.locking.advisory_locks import named

MOST = 3
"""Rehearsals at the same time. A console has eight threads for all requests of its users."""


class TooManyRehearsalsError(Exception):
    """No further rehearsal may start now; the message says why."""


@contextmanager
def rehearsal_slot(engine: Engine, actor: Actor) -> Iterator[None]:
    """Occupy one of the slots for rehearsals.

    Args:
        engine: the database that all consoles and commands share.
        actor: the operator, who may have one rehearsal at a time.

    Raises:
        TooManyRehearsalsError: all slots, or the operator's only one, are occupied.
        sqlalchemy.exc.DBAPIError: the database is unreachable.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            if not _take(connection, f"ops rehearsal of {actor.name}"):
                raise TooManyRehearsalsError(
                    f"A rehearsal of {actor.name}'s is under way: wait for its answer."
                )
            if not any(_take(connection, f"ops rehearsal {n}") for n in range(MOST)):
                raise TooManyRehearsalsError(
                    f"{MOST} rehearsals are under way, as many as may be at once: "
                    "try again in a moment."
                )
            yield
        finally:
            # The pool would hand the connection on with its locks.
            connection.execute(select(func.pg_advisory_unlock_all()))


def _take(connection: Connection, name: str) -> bool:
    return bool(connection.scalar(select(func.pg_try_advisory_lock(named(name)))))
