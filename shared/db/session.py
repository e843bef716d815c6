"""Engines and sessions: SQLAlchemy 2 over psycopg2."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg2
from sqlalchemy import Engine, NullPool, create_engine, func, make_url, select, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from shared.config.loading import settings
from shared.config.settings import Settings
from shared.db import deadline

IDLE_SECONDS = 30
"""How long a transaction may wait for its own process before the server ends it. Whoever waits for
others inside of one runs a statement now and then; a process that is frozen runs none."""

_TCP = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
"""A peer that vanished without a word is noticed in about 20 s, at either end."""
GONE_SECONDS = 1.0
"""After so long a statement ends whose client has hung up, as one that is out of time does; of
itself the server looks at its client when it has an answer."""

AMID = 2
"""How many connections a process keeps for what it does amid other transactions."""
_READ_ONLY = "25006"
"""The error (PostgreSQL, Appendix A) of a standby, or of a primary that was demoted."""
_PROGRAM_LIMITS = "54"
"""The class of errors (PostgreSQL, Appendix A) that psycopg2 counts among the operational ones."""


def connect_args(
    database_url: str,
    *,
    name: str = "order-fellow",
    connect_seconds: float = 5.0,
    idle_seconds: float | None = None,
    options: str = "",
) -> dict[str, Any]:
    """What every connection is made with: either side gives up the other when that is gone.

    Left to themselves servers look after two hours whether a silent client's machine is still
    there (tcp(7), `tcp_keepalive_time`), and a frozen process they take for a slow one; with it go
    its locks. A client waits as long for a server that vanished without a word.

    Args:
        database_url: settings that it has in `options` are kept.
        name: what the server calls the connection.
        connect_seconds: until a connection that is not made is given up.
        idle_seconds: how long a transaction may wait for its own process; `IDLE_SECONDS` as a rule.
        options: more of the server's settings (libpq, `options`).

    Returns:
        Parameters of libpq.
    """
    given = make_url(database_url).query.get("options", "")
    idle = IDLE_SECONDS if idle_seconds is None else idle_seconds
    wanted = _TCP | {
        "idle_in_transaction_session_timeout": round(idle * 1000),
        "client_connection_check_interval": round(GONE_SECONDS * 1000),
    }
    ours = [f"-c {parameter}={value}" for parameter, value in wanted.items()]
    said = [given] if isinstance(given, str) else given
    return {
        "client_encoding": "utf8",
        "connect_timeout": max(1, round(connect_seconds)),
        "application_name": name,
        "options": " ".join(filter(None, [*ours, options, *said])),
        "keepalives_idle": _TCP["tcp_keepalives_idle"],
        "keepalives_interval": _TCP["tcp_keepalives_interval"],
        "keepalives_count": _TCP["tcp_keepalives_count"],
        "tcp_user_timeout": _TCP["tcp_user_timeout"],
    }


def make_engine(
    config: Settings,
    *,
    pool_size: int | None = None,
    is_pooled: bool = True,
    idle_seconds: float | None = None,
    options: str = "",
) -> Engine:
    """An engine whose connections are checked before use and given up on quickly when dead.

    Args:
        config: `database_url`, `database_pool_size` and `database_connect_timeout` (seconds) count.
        pool_size: how many connections, where it is not for the setting to say.
        is_pooled: whether connections are kept; else each is new.
        idle_seconds: see `connect_args`.
        options: see `connect_args`.
    """
    pool: dict[str, Any] = {"poolclass": NullPool}
    if is_pooled:
        pool = {
            "pool_size": config.database_pool_size if pool_size is None else pool_size,
            "max_overflow": 0,
            "pool_timeout": config.database_connect_timeout,
            "pool_pre_ping": True,
        }
    made = create_engine(
        config.database_url,
        **pool,
        # An error is logged, and what was in the statement is somebody's address.
        hide_parameters=True,
        connect_args=connect_args(
            config.database_url,
            connect_seconds=config.database_connect_timeout,
            idle_seconds=idle_seconds,
            options=options,
        ),
    )
    return deadline.watch(made)


@cache
def engine() -> Engine:
    """This process's engine. Made at the first call, so after a fork."""
    return make_engine(settings())


@cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(engine(), expire_on_commit=False)


@cache
def _sessions_amid() -> sessionmaker[Session]:
    return sessionmaker(make_engine(settings(), pool_size=AMID), expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session in one transaction: committed at the end, rolled back on an exception.

    Not amid another one: whoever holds a connection and waits for a second of the same pool waits,
    where all do, for each other.
    """
    with _sessions()() as session:
        yield session
        session.commit()


@contextmanager
def transaction_amid() -> Iterator[Session]:
    """The same, amid another transaction, over connections that nobody keeps for longer.

    Inside of it nothing waits for the transaction around it, nor for a lock that one may hold.
    """
    with _sessions_amid()() as session:
        yield session
        session.commit()


def let_go(session: Session) -> None:
    """Commit, and give the connection back, before a wait for somebody else; see `IDLE_SECONDS`.

    What the session is asked next begins a transaction of its own. Else a page that waits for the
    broker has one of the process's few connections, and loses its transaction.
    """
    session.commit()


def database_time(session: Session) -> datetime:
    """The time by the database's clock, which is one for all."""
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found


def both_clocks(session: Session) -> tuple[datetime, datetime]:
    """The time by the database's clock and by this host's, the earlier first."""
    one, other = sorted((database_time(session), datetime.now(UTC)))
    return one, other


def time_by_both_clocks(session: Session) -> datetime:
    """The earlier time of the database's clock and this host's.

    By it goes what does not come back: one clock that has jumped ahead removes nothing.
    """
    return both_clocks(session)[0]


def still_here(session: Session) -> None:
    """Tell the server that a transaction waits for somebody else; see `IDLE_SECONDS`."""
    session.execute(text("SELECT 1"))


def is_read_only(error: BaseException) -> bool:
    """Whether `error` is that of a database that answers and takes no writes."""
    return getattr(getattr(error, "orig", error), "pgcode", None) == _READ_ONLY


def is_used_up(error: BaseException) -> bool:
    """Whether this process has no connection left: its own doing, whatever the database does."""
    return isinstance(error, PoolTimeoutError)


def is_database_away(error: BaseException) -> bool:
    """Whether `error` is the database's trouble, so that trying again later may well succeed.

    True for refused, lost and exhausted connections, a server that is starting, stopping or
    read-only after a failover, locks that took too long, deadlocks and a full disk. False for what
    the statement itself did wrong, such as a violated constraint or a value beyond what an index or
    the parser takes: it would be no other at the next try.
    """
    code = getattr(getattr(error, "orig", error), "pgcode", None) or ""
    if code.startswith(_PROGRAM_LIMITS):
        return False
    away = PoolTimeoutError | InterfaceError | OperationalError | deadline.NoAnswerError
    if isinstance(error, away):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        return is_read_only(error)
    return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)
