"""Alembic's environment: one transaction, one advisory lock."""

from alembic import context
from sqlalchemy import create_engine, text

from shared.config.environment import ConfigurationError
from shared.config.loading import settings
from shared.db import grants
from shared.db.models import Base

# Any number will do, as long as it stays the same.
ADVISORY_LOCK = 7_034_221


def run() -> None:
    """Run the migrations on the database that the caller, or the environment, names."""
    given = context.config.attributes
    url = given.get("database_url") or settings().database_url
    engine = create_engine(url)
    with engine.begin() as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if encoding != "UTF8":
            raise ConfigurationError(
                f"The database of DATABASE_URL is encoded as {encoding}, which cannot hold every "
                "name. Make one by CREATE DATABASE order_fellow ENCODING 'UTF8' TEMPLATE template0."
            )
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        with context.begin_transaction():
            context.run_migrations()
        if "passwords" in given:
            grants.apply(connection, given["passwords"])
    engine.dispose()


run()
