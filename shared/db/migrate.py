"""`python -m shared.db.migrate`: bring the database to the newest schema and stop."""

import sys
from collections.abc import Mapping
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text

from shared import versions
from shared.config.environment import ConfigurationError
from shared.config.loading import begin
from shared.db.locking.lock_patience import BlockedError
from shared.db.session import connect_args
from shared.security.service_accounts import SERVICES

MIGRATIONS = Path(__file__).parent / "migrations"


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


def main() -> int:
    """Upgrade the database of this environment.

    Returns:
        The exit code: 2 for a bad configuration, 1 when somebody keeps what has to be locked.
    """
    try:
        found = begin("migrations")
        untried = versions.warning("PostgreSQL", server_version(found.database_url))
        if untried:
            print(untried, file=sys.stderr)  # noqa: T201
        upgrade(found.database_url, found.passwords_of(SERVICES))
    except ConfigurationError as error:
        print(f"The database cannot be migrated. {error}", file=sys.stderr)  # noqa: T201
        return 2
    except BlockedError as error:
        print(f"The database is not at the newest schema. {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("The database is at the newest schema, and each service has its rights.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
