"""Alembic's environment: one advisory lock, and a transaction for each version."""

import time

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from shared.config.environment import ConfigurationError
from shared.config.loading import settings
from shared.db import grants
from shared.db.locking.advisory_locks import MIGRATIONS
from shared.db.locking.lock_patience import LOOK_SECONDS, patiently
from shared.db.models import Base
from shared.db.session import connect_args


def run() -> None:
    """Run the migrations on the database that the caller, or the environment, names."""
    given = context.config.attributes
    url = given.get("database_url") or settings().database_url
    engine = create_engine(
        url, poolclass=NullPool, connect_args=connect_args(url, name="migrations")
    )
    with engine.connect() as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if encoding != "UTF8":
            raise ConfigurationError(
                f"The database of DATABASE_URL is encoded as {encoding}, which cannot hold every "
                "name. Make one by CREATE DATABASE order_fellow ENCODING 'UTF8' TEMPLATE template0."
            )
        # Until the connection ends. Asked for again and again: whoever waits inside a statement has
        # a snapshot, which an index that another migration builds CONCURRENTLY waits for.
        mine = text("SELECT pg_try_advisory_lock(:key)")
        while not connection.scalar(mine, {"key": MIGRATIONS}):
            connection.commit()
            time.sleep(LOOK_SECONDS)
        connection.commit()

        def migrate() -> None:
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                # What is locked by one version is free before the next.
                transaction_per_migration=True,
            )
            with context.begin_transaction():
                context.run_migrations()

        def grant() -> None:
            with connection.begin():
                grants.apply(connection, given["passwords"])

        patiently(connection, migrate)
        if "passwords" in given:
            patiently(connection, grant)


run()
