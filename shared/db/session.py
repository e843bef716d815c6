"""Engines and sessions: SQLAlchemy 2 over psycopg2."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg2
from sqlalchemy import (
    Engine,
    ExceptionContext,
    NullPool,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from shared.config.loading import settings
from shared.config.settings import Settings
from shared.db import deadline

IDLE_SECONDS = 30
"""Seconds after which the server ends a transaction that is idle, e.g. of a frozen process. Code
that waits inside of a transaction calls `keep_transaction_alive` now and then."""

_TCP = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
"""Either end detects a peer that vanished silently within about 20 s."""
CLIENT_CHECK_SECONDS = 1.0
"""Interval at which the server checks a statement's client connection. By default it notices a
closed one, such as one that was cut at its deadline, only when it sends the result."""

INDEPENDENT_POOL_SIZE = 2
"""Connections per process for transactions that run inside of another transaction."""
_READ_ONLY = "25006"
"""SQLSTATE (PostgreSQL, Appendix A) of a standby, or of a primary that was demoted."""
_PROGRAM_LIMITS = "54"
"""SQLSTATE class (PostgreSQL, Appendix A) that psycopg2 raises as OperationalError."""


def connect_args(
    database_url: str,
    *,
    name: str = "order-fellow",
    connect_seconds: float = 5.0,
    idle_seconds: float | None = None,
    options: str = "",
) -> dict[str, Any]:
    """Return the parameters of every connection, by which either side detects that the other died.

    By default a peer whose machine vanished is detected after two hours (tcp(7),
    `tcp_keepalive_time`) and a frozen client never; the server keeps its locks that long.

    Args:
        database_url: its `options` are kept.
        name: application_name of the connection.
        connect_seconds: connect timeout.
        idle_seconds: `idle_in_transaction_session_timeout`; by default `IDLE_SECONDS`.
        options: further server settings (libpq, `options`).

    Returns:
        Parameters of libpq.
    """
    url_options = make_url(database_url).query.get("options", "")
    idle = IDLE_SECONDS if idle_seconds is None else idle_seconds
    parameters = _TCP | {
        "idle_in_transaction_session_timeout": round(idle * 1000),
        "client_connection_check_interval": round(CLIENT_CHECK_SECONDS * 1000),
    }
    server_options = [f"-c {parameter}={value}" for parameter, value in parameters.items()]
    from_url = [url_options] if isinstance(url_options, str) else url_options
    return {
        "client_encoding": "utf8",
        "connect_timeout": max(1, round(connect_seconds)),
        "application_name": name,
        "options": " ".join(filter(None, [*server_options, options, *from_url])),
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
    """Return an engine that checks its connections before use and detects dead ones quickly.

    Args:
        config: provides `database_url`, `database_pool_size` and `database_connect_timeout`
            (seconds).
        pool_size: overrides `database_pool_size`.
        is_pooled: whether connections are reused.
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
        # Errors are logged, and parameters contain personal data.
        hide_parameters=True,
        connect_args=connect_args(
            config.database_url,
            connect_seconds=config.database_connect_timeout,
            idle_seconds=idle_seconds,
            options=options,
        ),
    )
    event.listen(made, "handle_error", _without_rows)
    return deadline.watch(made)


def _without_rows(context: ExceptionContext) -> None:
    """Reduce an error to the server's primary message: the detail quotes the row."""
    error, primary = context.original_exception, None
    if isinstance(error, psycopg2.Error):
        primary = error.diag.message_primary
    if primary:
        error.args = (primary,)
        if context.sqlalchemy_exception is not None:
            context.sqlalchemy_exception.args = (f"({type(error).__name__}) {primary}",)


@cache
def engine() -> Engine:
    """Return this process's engine; created at the first call, and so after a fork."""
    return make_engine(settings())


@cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(engine(), expire_on_commit=False)


@cache
def _independent_sessions() -> sessionmaker[Session]:
    independent = make_engine(settings(), pool_size=INDEPENDENT_POOL_SIZE)
    return sessionmaker(independent, expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """Run the block in one transaction: committed at the end, rolled back on an exception.

    Do not nest it: threads that each hold a connection and wait for a second one of the same pool
    deadlock. Use `independent_transaction` there.
    """
    with _sessions()() as session:
        yield session
        session.commit()


@contextmanager
def independent_transaction() -> Iterator[Session]:
    """Run the block in a transaction of a separate pool, usable inside of another transaction.

    The block must not need a lock that the outer transaction may hold.
    """
    with _independent_sessions()() as session:
        yield session
        session.commit()


def release_connection(session: Session) -> None:
    """Commit and return the connection to the pool, before waiting for another system.

    The session's next statement begins a new transaction. Otherwise a page that waits for the
    broker would occupy one of the few connections, and lose its transaction by `IDLE_SECONDS`.
    """
    session.commit()


def database_time(session: Session) -> datetime:
    """Return the time by the database's clock, which all processes share."""
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found


def both_clocks(session: Session) -> tuple[datetime, datetime]:
    """Return the time by the database's clock and by this host's, the earlier first."""
    one, other = sorted((database_time(session), datetime.now(UTC)))
    return one, other


def time_by_both_clocks(session: Session) -> datetime:
    """Return the earlier of the database's and this host's time.

    Irreversible removals use it, so that one clock that jumped ahead removes nothing.
    """
    return both_clocks(session)[0]


def keep_transaction_alive(session: Session) -> None:
    """Reset the server's idle timeout of an open transaction; see `IDLE_SECONDS`."""
    session.execute(text("SELECT 1"))


def is_read_only(error: BaseException) -> bool:
    """Return whether the database answers but is read-only."""
    return getattr(getattr(error, "orig", error), "pgcode", None) == _READ_ONLY


def is_pool_exhausted(error: BaseException) -> bool:
    """Return whether this process had no free connection, whatever the state of the database."""
    return isinstance(error, PoolTimeoutError)


def is_database_unavailable(error: BaseException) -> bool:
    """Return whether the database's state caused the error, so that a later retry may succeed.

    True for refused, lost and exhausted connections, a server that is starting, stopping or
    read-only after a failover, lock timeouts, deadlocks and a full disk. False for faults of the
    statement, such as a violated constraint or a value too large for an index or the parser, which
    would fail again.
    """
    code = getattr(getattr(error, "orig", error), "pgcode", None) or ""
    if code.startswith(_PROGRAM_LIMITS):
        return False
    temporary = PoolTimeoutError | InterfaceError | OperationalError | deadline.NoAnswerError
    if isinstance(error, temporary):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        return is_read_only(error)
    return isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError)


def message_of(error: BaseException) -> str:
    """Return the driver's message of an error in one line.

    It is whole: of several hosts, the answer of the last one is at its end.
    """
    return " ".join(str(getattr(error, "orig", None) or error).split())
