"""`python -m shared.db.migrate`: bring the database to the newest schema and stop."""

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
from shared.db.locking.lock_patience import BlockedError
from shared.db.session import connect_args
from shared.security.service_accounts import SERVICES

MIGRATIONS = Path(__file__).parent / "migrations"
PATIENCE_SECONDS = 60.0
"""How long a server that does not answer yet is waited for: a new one restarts once (initdb)."""
_PASSES = ("the database system is", "too many clients", "remaining connection slots")


def config(database_url: str) -> Config:
    """Alembic's configuration for a database.

    Args:
        database_url: `postgresql+psycopg2://...`.
    """
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    made.attributes["database_url"] = database_url
    return made


def upgrade(database_url: str, passwords: Mapping[str, str] | None = None) -> None:
    """Run the migrations that the database lacks, and grant each service's role its rights.

    Each version is a transaction of its own, and asks for its locks briefly and again, so that a
    system that runs goes on. Two processes that run at once wait for each other: the environment
    takes an advisory lock.

    Args:
        database_url: `postgresql+psycopg2://...`, as the owner of it all.
        passwords: by service, for those whose role may sign in; see `shared/db/grants.py`.

    Raises:
        shared.db.locking.lock_patience.BlockedError: somebody keeps what has to be locked.
    """
    wanted = config(database_url)
    wanted.attributes["passwords"] = passwords or {}
    command.upgrade(wanted, "head")


def server_version(database_url: str) -> str:
    """The version that the database says it is of, such as `15.18 (Debian 15.18-0+deb12u1)`."""
    engine = create_engine(
        database_url, poolclass=NullPool, connect_args=connect_args(database_url)
    )
    with engine.connect() as connection:
        return str(connection.scalar(text("SHOW server_version")))


def _wait_for_server(database_url: str) -> str:
    """The version of the database, once it answers.

    Raises:
        sqlalchemy.exc.OperationalError: it does not within `PATIENCE_SECONDS`, or refuses us.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    is_told = False
    while True:
        try:
            return server_version(database_url)
        except OperationalError as error:
            said = str(error.orig)
            is_refusal = "FATAL:" in said and not any(words in said for words in _PASSES)
            if is_refusal or time.monotonic() > deadline:
                raise
        if not is_told:
            is_told = True
            print(f"Waiting up to {PATIENCE_SECONDS:g} s for the database", file=sys.stderr)  # noqa: T201
        time.sleep(1)


def main() -> int:
    """Upgrade the database of this environment.

    Returns:
        The exit code: 2 for a bad configuration, 1 when the database does not answer or refuses
        us, or when somebody keeps what has to be locked.
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
        said = " ".join(str(error.orig).split())
        print(f"The database cannot be migrated. {said}", file=sys.stderr)  # noqa: T201
        return 1
    except BlockedError as error:
        print(f"The database is not at the newest schema. {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("The database is at the newest schema, and each service has its rights.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
