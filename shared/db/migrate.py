"""`python -m shared.db.migrate`: bring the database to the newest schema and stop."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config

from shared.config import ConfigurationError, settings

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


def upgrade(database_url: str) -> None:
    """Run the migrations that the database lacks.

    Two processes that run at once wait for each other: the environment takes an advisory lock.

    Args:
        database_url: `postgresql+psycopg2://...`.
    """
    command.upgrade(config(database_url), "head")


def main() -> int:
    """Upgrade the database of this environment.

    Returns:
        The exit code: 2 for a bad configuration.
    """
    try:
        upgrade(settings().database_url)
    except ConfigurationError as error:
        print(f"The database cannot be migrated. {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
