"""The migrations make what the models describe, from any version, by any number at once."""

import os
import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

from shared.db import migrate
from shared.db.models import Base
from tests.integration.arrange import account


@pytest.fixture
def empty(database):
    """A database without anything in it."""
    database.execute("DROP DATABASE IF EXISTS empty WITH (FORCE)")
    database.execute("CREATE DATABASE empty")
    yield database.url("empty")
    database.execute("DROP DATABASE empty WITH (FORCE)")


def tables(url):
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_the_migrations_and_the_models_agree(database_url):
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_down_and_up_again(empty):
    migrate.upgrade(empty)
    made = tables(empty)
    config = migrate.config(empty)
    command.downgrade(config, "base")
    assert tables(empty) == {"alembic_version"}
    engine = create_engine(empty)
    with engine.connect() as connection:
        functions = "SELECT count(*) FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace"
        count = connection.execute(text(functions + " WHERE nspname = 'public'"))
        assert count.scalar() == 0
    engine.dispose()
    migrate.upgrade(empty)
    assert tables(empty) == made


def test_several_at_once(empty):
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "shared.db.migrate"],
            env=os.environ | {"DATABASE_URL": empty},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert {"accounts", "orders", "outbox", "alembic_version"} <= tables(empty)


def test_an_upgrade_of_the_newest_changes_nothing(settings, db):
    made = account(db)
    migrate.upgrade(settings.database_url)
    db.rollback()
    assert db.get(type(made), made.id) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO kyc_applications (id, account_id, business_registration_number,"
        " business_address, contact_person_details, status)"
        " VALUES (gen_random_uuid(), '{id}', 'x', 'x', '1', 'perhaps')",
        "INSERT INTO accounts (id, company_name, email, password_hash)"
        " SELECT gen_random_uuid(), 'x', email, 'x' FROM accounts",
        "INSERT INTO inbox (consumer, message_id) SELECT 'c', '{id}' FROM generate_series(1, 2)",
    ],
)
def test_constraints_guard(engine, db, statement):
    made = account(db)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(statement.format(id=made.id)))


def test_a_database_in_another_encoding_is_refused_in_a_sentence(database):
    database.execute(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    done = subprocess.run(
        [sys.executable, "-m", "shared.db.migrate"],
        env=os.environ | {"DATABASE_URL": database.url("latin")},
        capture_output=True,
        text=True,
    )
    database.execute("DROP DATABASE latin WITH (FORCE)")
    assert done.returncode == 2
    assert "is encoded as LATIN1" in done.stderr
    assert "Traceback" not in done.stderr
