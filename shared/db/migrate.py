"""`python -m shared.db.migrate`: bring the database to the newest schema and stop."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from shared.config import settings

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run the migrations up to `revision`.

    Two that run at once wait for each other: the environment takes an advisory lock.

    Args:
        database_url: `postgresql+psycopg2://...`.
        revision: an Alembic revision.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    command.upgrade(config, revision)


if __name__ == "__main__":
    upgrade(settings().database_url)
