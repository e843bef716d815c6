"""`python -m shared.db.migrate`: migrates the database to the newest schema."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from shared import versions
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.db.locking.lock_retry import BlockedError
from shared.db.session import connect_args
from shared.security.service_accounts import SERVICES

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE_SECONDS = 60.0
"""How long to wait for a server that is starting: a new one restarts once (initdb)."""
_TEMPORARY = ("the database system is", "too many clients", "remaining connection slots")


def config(database_url: str) -> Config:
    """Return Alembic's configuration for a database.

    Args:
        database_url: `postgresql+psycopg2://...`.
    """
    result = Config()
    # Alembic uses a ConfigParser, which interpolates %.
    result.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    result.attributes["database_url"] = database_url
    return result


def upgrade(database_url: str, passwords: Mapping[str, str] | None = None) -> None:
    """Run the missing migrations, and grant each service's role its privileges.

    Each migration is a separate transaction, and waits for locks only briefly before it retries, so
    that a running system is not blocked. Concurrent runs wait for each other by an advisory lock.

    Args:
        database_url: `postgresql+psycopg2://...`, as the owner of the tables.
        passwords: by service, for roles that may log in; see `shared/db/grants.py`.

    Raises:
        shared.db.locking.lock_retry.BlockedError: another transaction keeps a needed lock.
    """
    alembic = config(database_url)
    alembic.attributes["passwords"] = passwords or {}
    command.upgrade(alembic, "head")


def server_version(database_url: str) -> str:
    """Return the server's version, such as `15.18 (Debian 15.18-0+deb12u1)`."""
    engine = create_engine(
        database_url, poolclass=NullPool, connect_args=connect_args(database_url)
    )
    with engine.connect() as connection:
        return str(connection.scalar(text("SHOW server_version")))


def _wait_for_server(database_url: str) -> str:
    """Wait until the server answers and return its version.

    Raises:
        sqlalchemy.exc.OperationalError: it does not within `PATIENCE_SECONDS`, or refuses access.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    is_announced = False
    while True:
        try:
            return server_version(database_url)
        except OperationalError as error:
            reason = str(error.orig)
            is_refusal = "FATAL:" in reason and not any(part in reason for part in _TEMPORARY)
            if is_refusal or time.monotonic() > deadline:
                raise
        if not is_announced:
            is_announced = True
            print(f"Waiting up to {PATIENCE_SECONDS:g} s for the database", file=sys.stderr)  # noqa: T201
        time.sleep(1)


def main() -> int:
    """Migrate the database of this environment.

    Returns:
        The exit code: 2 for an invalid configuration, 1 if the database does not answer or refuses
        access, or if another transaction keeps a needed lock.
    """
    try:
        found = begin("migrations")
        untried = versions.warning("PostgreSQL", _wait_for_server(found.database_url))
        if untried:
            print(untried, file=sys.stderr)  # noqa: T201
        upgrade(found.database_url, found.passwords_of(SERVICES))
    except ConfigurationError as error:
        print(f"The database cannot be migrated. {error}", file=sys.stderr)  # noqa: T201
        return 2
    except OperationalError as error:
        reason = " ".join(str(error.orig).split())
        print(f"The database cannot be migrated. {reason}", file=sys.stderr)  # noqa: T201
        return 1
    except BlockedError as error:
        print(f"The database is not at the newest schema. {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("The database is at the newest schema, and each service has its rights.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
