"""`python -m shared.db.migrate`: bring the database to the newest schema and stop."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from shared.config import settings

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


if __name__ == "__main__":
    upgrade(settings().database_url)
