"""Alembic's environment: one advisory lock, and one transaction per migration."""

import time

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from shared.config.environment import ConfigurationError
from shared.config.loading import settings
from shared.db import grants
from shared.db.locking.advisory_locks import MIGRATIONS
from shared.db.locking.lock_retry import POLL_SECONDS, with_lock_retries
from shared.db.models import Base
from shared.db.session import connect_args


def run() -> None:
    """Run the migrations on the database of the caller, or else of the environment."""
    attributes = context.config.attributes
    url = attributes.get("database_url") or settings().database_url
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
        # Held until the connection ends. Polled, because a session that waits inside a statement
        # has a snapshot, for which a CREATE INDEX CONCURRENTLY of another migration would wait.
        try_lock = text("SELECT pg_try_advisory_lock(:key)")
        while not connection.scalar(try_lock, {"key": MIGRATIONS}):
            connection.commit()
            time.sleep(POLL_SECONDS)
        connection.commit()

        def migrate() -> None:
            context.configure(
                connection=connection,
                target_metadata=Base.metadata,
                # Locks of one migration are released before the next.
                transaction_per_migration=True,
            )
            with context.begin_transaction():
                context.run_migrations()

        def grant() -> None:
            with connection.begin():
                grants.apply(connection, attributes["passwords"])

        with_lock_retries(connection, migrate)
        if "passwords" in attributes:
            with_lock_retries(connection, grant)


run()
