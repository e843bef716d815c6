"""The migrations make what the models describe, from any version, by any number at once."""

import os
import subprocess
import sys
import threading
import time

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, inspect, make_url, text
from sqlalchemy.exc import IntegrityError

from shared import erased
from shared.db import migrate
from shared.db.locking import lock_retry
from shared.db.models import Base
from shared.ids import new_id
from stack.folders import ROOT
from stack.servers.credentials import service_passwords
from tests.integration.arrange import PATIENCE, account, until
from tests.integration.gate import Gate
from tests.machines.deployment import block


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


@pytest.mark.parametrize("name", ["50% done", "feature%2Flogin", "%(here)s"])
def test_they_are_found_wherever_the_checkout_is(name, tmp_path, monkeypatch):
    (tmp_path / name).symlink_to(migrate.MIGRATIONS)
    monkeypatch.setattr(migrate, "MIGRATIONS", tmp_path / name)
    found = ScriptDirectory.from_config(migrate.config(""))
    assert found.dir == str(tmp_path / name)
    assert found.get_current_head()


def test_a_message_whose_time_stops_the_relay_is_mended_on_the_way(empty):
    command.upgrade(migrate.config(empty), "0039")
    engine = create_engine(empty)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO outbox (message_id, exchange, routing_key, type, source,"
                " correlation_id, time, body)"
                " VALUES (gen_random_uuid(), 'x', 'x', 'x', 'x', 'x', '10000-01-01 00:00+00', '')"
            )
        )
    migrate.upgrade(empty)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT time = created_at FROM outbox")) is True
    engine.dispose()


def test_every_constraint_was_looked_at(database_url):
    """What is NOT VALID may be broken by rows of before, and the models do not say so."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        left = "SELECT conname FROM pg_constraint WHERE NOT convalidated"
        assert connection.scalars(text(left)).all() == []
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


ACCOUNT = """
    INSERT INTO accounts (id, company_name, email, password_hash)
    VALUES ('{id}', 'x', '{id}@kettle.example', '-')
"""
APPLICATION = """
    INSERT INTO kyc_applications (id, account_id, business_registration_number, business_address,
                                  contact_person_details, status)
    VALUES (gen_random_uuid(), '{id}', 'x', 'x', '1', '{status}')
"""
SECRET = """
    INSERT INTO webhook_secrets (id, account_id, key_hash, sealed, state, expires_at)
    VALUES (gen_random_uuid(), '{id}', sha256('{id}{state}'), '', '{state}', now() + interval '1 d')
"""


def test_a_live_secret_without_an_approval_is_revoked_on_the_way_from_0005(empty):
    """And what the version before does goes on working while it still runs."""
    command.upgrade(migrate.config(empty), "0005")
    engine = create_engine(empty)
    ids = {}
    with engine.begin() as connection:
        for status in ("approved", "revoked", "pending"):
            ids[status] = new_id()
            connection.execute(text(ACCOUNT.format(id=ids[status])))
            connection.execute(text(APPLICATION.format(id=ids[status], status=status)))
            for state in ("active", "retiring", "expired"):
                connection.execute(text(SECRET.format(id=ids[status], state=state)))
        begin = connection.execute(text("SELECT clock_timestamp()")).scalar()
    command.upgrade(migrate.config(empty), "0007")
    with engine.begin() as connection:
        states = {
            status: dict(connection.execute(text(
                f"SELECT state, count(*) FROM webhook_secrets WHERE account_id = '{id_}' "
                "GROUP BY state")).all())
            for status, id_ in ids.items()
        }  # fmt: skip
        assert states["approved"] == {"active": 1, "retiring": 1, "expired": 1}
        assert states["revoked"] == states["pending"] == {"revoked": 2, "expired": 1}
        # The workers of before hear of it: they poll by updated_at.
        assert connection.execute(text(
            "SELECT bool_and(updated_at > :begin AND revoked_with IS NOT NULL) "
            "FROM webhook_secrets WHERE state = 'revoked'"), {"begin": begin}).scalar()  # fmt: skip
        # A rotation of before, and the recorded change of a policy.
        connection.execute(text("UPDATE webhook_secrets SET state = 'retiring' "
                                "WHERE state = 'active'"))  # fmt: skip
        connection.execute(text(SECRET.format(id=ids["approved"], state="active").replace(
            "sha256('", "sha256('new")))  # fmt: skip
        connection.execute(text("INSERT INTO webhook_policies (account_id, rate_per_second) "
                                f"VALUES ('{ids['approved']}', 5)"))  # fmt: skip
        stamps = text("SELECT updated_at > :begin AND changed_in > 0 FROM webhook_policies")
        assert connection.execute(stamps, {"begin": begin}).scalar()
    engine.dispose()


def test_an_application_that_a_closed_account_has_open_ends_on_the_way_from_0030(empty):
    """And a live secret that came of it."""
    command.upgrade(migrate.config(empty), "0030")
    engine = create_engine(empty)
    ids = {}
    close = "UPDATE accounts SET closed_at = now() WHERE id = '{id}'"
    with engine.begin() as connection:
        for status in ("approved", "pending", "incomplete"):
            ids[status] = new_id()
            connection.execute(text(ACCOUNT.format(id=ids[status])))
            # As what was sent in while it was being closed.
            connection.execute(text(close.format(id=ids[status])))
            connection.execute(text(APPLICATION.format(id=ids[status], status=status)))
        connection.execute(text(SECRET.format(id=ids["approved"], state="active")))
        other = new_id()
        connection.execute(text(ACCOUNT.format(id=other)))
        connection.execute(text(APPLICATION.format(id=other, status="pending")))
    command.upgrade(migrate.config(empty), "0036")
    with engine.begin() as connection:
        found = dict(
            connection.execute(text("SELECT account_id, status FROM kyc_applications")).all()
        )
        assert found == {
            ids["approved"]: "revoked",
            ids["pending"]: "rejected",
            ids["incomplete"]: "rejected",
            other: "pending",
        }
        assert connection.execute(text("SELECT state FROM webhook_secrets")).scalar() == "revoked"
    engine.dispose()


def test_what_was_written_behind_an_erasure_ends_on_the_way_from_0040(empty):
    command.upgrade(migrate.config(empty), "0040")
    engine = create_engine(empty)
    theirs, others = new_id(), new_id()
    order = (
        "INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone, "
        "item_summary, address, tracking_status, status_at, status_event_id, accepted_at) "
        "VALUES (:id, :id, '', :email, '', '', '', 'PENDING', now(), :id, now())"
    )
    said = (
        "INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied, "
        "tracking) VALUES (:id, :id, 'PENDING', 'by the door', now(), true, '{\"carrier\": \"x\"}')"
    )
    other = (
        "INSERT INTO order_conflicts (event_id, order_id, account_id, event, at) "
        'VALUES (:id, :id, :id, \'{"address": "Lagos"}\', now())'
    )
    with engine.begin() as connection:
        for id_, email in ((theirs, erased.ADDRESS), (others, "zoe@shop.example")):
            for statement in (order, said, other):
                connection.execute(text(statement), {"id": id_, "email": email})
    migrate.upgrade(empty)
    with engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT order_id, note, tracking ->> 'carrier', event ->> 'address' "
                "FROM order_status_history JOIN order_conflicts USING (order_id)"
            )
        )
        assert set(map(tuple, found)) == {
            (theirs, erased.TEXT, None, erased.TEXT),
            (others, "by the door", "x", "Lagos"),
        }
    engine.dispose()


def test_who_could_act_has_every_right_and_the_version_before_sees_it_so(empty):
    command.upgrade(migrate.config(empty), "0012")
    engine = create_engine(empty)
    made = (
        "INSERT INTO ops_users (id, name, password_hash, role) VALUES ('{id}', '{n}', '-', '{n}')"
    )
    with engine.begin() as connection:
        for name in ("act", "watch"):
            connection.execute(text(made.format(id=new_id(), n=name)))
    command.upgrade(migrate.config(empty), "0013")
    roles = text("SELECT name, role FROM ops_users")
    with engine.begin() as connection:
        assert dict(connection.execute(roles).all()) == {"act": "act", "watch": "watch"}
        rights = dict(connection.execute(text("SELECT name, rights FROM ops_users")).all())
        assert rights == {"act": ["kyc", "messages", "customers"], "watch": []}
        # Whoever has some of them may act nowhere in the version before.
        connection.execute(text("UPDATE ops_users SET rights = '{kyc}' WHERE name = 'act'"))
        assert dict(connection.execute(roles).all()) == {"act": "watch", "watch": "watch"}
        connection.execute(
            text("UPDATE ops_users SET rights = '{customers,messages,kyc}' WHERE name = 'act'")
        )
    command.downgrade(migrate.config(empty), "0012")
    with engine.begin() as connection:
        assert dict(connection.execute(roles).all()) == {"act": "act", "watch": "watch"}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text(made.format(id=new_id(), n="root")))
    engine.dispose()


def test_several_at_once(empty):
    running = [start_migrating(empty) for _ in range(4)]
    for process in running:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert {"accounts", "orders", "outbox", "alembic_version"} <= tables(empty)


def start_migrating(url):
    return subprocess.Popen(
        [sys.executable, "-m", "shared.db.migrate"],
        env=os.environ | {"DATABASE_URL": url},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_server_that_is_only_being_made_is_waited_for(empty):
    with Gate(empty) as gate:
        gate.cut()
        migrating = start_migrating(gate.url)
        assert "Waiting" in migrating.stderr.readline()
        gate.open()
        _, errors = migrating.communicate(timeout=PATIENCE)
    assert migrating.returncode == 0, errors
    assert "alembic_version" in tables(empty)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.set(password="another"), "password authentication failed"),
        (lambda url: url.set(database="not_there"), "does not exist"),
    ],
)
def test_a_server_that_refuses_is_a_sentence_at_once(empty, change, said):
    refused = change(make_url(empty)).render_as_string(hide_password=False)
    migrating = start_migrating(refused)
    _, errors = migrating.communicate(timeout=PATIENCE)
    assert migrating.returncode == 1
    assert said in errors
    assert "Traceback" not in errors
    assert "Waiting" not in errors


def test_a_server_that_never_answers_is_a_sentence(empty, monkeypatch, capsys):
    monkeypatch.setattr(migrate, "PATIENCE_SECONDS", 0.5)
    with Gate(empty) as gate:
        gate.cut()
        monkeypatch.setenv("DATABASE_URL", gate.url)
        assert migrate.main() == 1
    assert "The database cannot be migrated. " in capsys.readouterr().err


def test_a_long_transaction_holds_up_the_migration_and_nobody_else(empty, capfd):
    """0016 adds columns to orders, and so stands before all who come after it."""
    command.upgrade(migrate.config(empty), "0015")
    engine = create_engine(empty, connect_args={"application_name": "a report"})
    upgrading = threading.Thread(target=migrate.upgrade, args=(empty,))
    said = ""
    with engine.connect() as reporting:
        reporting.execute(text("SELECT count(*) FROM orders"))
        pid = reporting.scalar(text("SELECT pg_backend_pid()"))
        upgrading.start()
        for _ in range(1_200):
            with engine.begin() as reading:
                reading.execute(text("SET LOCAL statement_timeout = '20s'"))
                reading.execute(text("SELECT count(*) FROM orders"))
            said += capfd.readouterr().err
            if "tries again" in said:
                break
            time.sleep(0.1)
        assert f"a lock of pid {pid} (" in said
        assert ", a report), in a transaction for " in said
        assert upgrading.is_alive()
        assert version(engine) == "0015"
    upgrading.join()
    head = ScriptDirectory.from_config(migrate.config("")).get_current_head()
    assert version(engine) == head
    engine.dispose()


def test_indexes_are_built_beside_who_writes_and_anew_where_one_was_broken_off(empty):
    """Behind another one a migration waits without a snapshot, or each waits for the other."""
    command.upgrade(migrate.config(empty), "0040")
    engine = create_engine(empty, isolation_level="AUTOCOMMIT")
    migrating = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ "
    )
    builds = text(migrating + "'^(CREATE|DROP) INDEX CONCURRENTLY'")
    behind = text(migrating + "'^(SELECT pg_try_advisory_lock|COMMIT|ROLLBACK)'")
    running = []
    writer = create_engine(empty)
    with writer.connect() as writing, engine.connect() as looking:
        # As one is left by a build that was ended.
        looking.execute(text("CREATE INDEX ix_orders_customer_email ON orders (customer_name)"))
        looking.execute(
            text(
                "UPDATE pg_index SET indisvalid = false "
                "WHERE indexrelid = 'ix_orders_customer_email'::regclass"
            )
        )
        writing.execute(text("DELETE FROM orders"))
        for look, what in ((builds, "one builds"), (behind, "one is behind it")):
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "shared.db.migrate"],
                    env=os.environ | {"DATABASE_URL": empty},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            until(lambda look=look: looking.scalar(look), what)
        looking.execute(text("SET statement_timeout = '20s'"))
        looking.execute(text("DELETE FROM orders"))  # it stands before nobody
        writing.rollback()
        for process in running:
            _, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors
            assert "tries again" not in errors
        found = looking.execute(
            text(
                "SELECT indisvalid, pg_get_indexdef(indexrelid) AS made FROM pg_index "
                "WHERE indexrelid = 'ix_orders_customer_email'::regclass"
            )
        ).one()
        assert found.indisvalid
        assert "lower" in found.made
    writer.dispose()
    engine.dispose()


def test_what_is_not_to_be_had_is_given_up_in_a_sentence(empty, monkeypatch):
    command.upgrade(migrate.config(empty), "0014")
    monkeypatch.setattr(lock_retry, "GIVE_UP_SECONDS", 0.0)
    engine = create_engine(empty)
    with engine.connect() as reporting:
        reporting.execute(text("SELECT count(*) FROM orders"))
        with pytest.raises(lock_retry.BlockedError, match="waits for a lock of pid"):
            migrate.upgrade(empty)
    # What was done before it stays, and nothing of it is locked.
    assert version(engine) == "0015"
    migrate.upgrade(empty)
    engine.dispose()


def version(engine):
    with engine.connect() as connection:
        return connection.scalar(text("SELECT version_num FROM alembic_version"))


def test_an_extension_that_may_not_be_added_stops_no_upgrade(empty):
    """A provider's own list is no privilege: it fails. And what was there is not ours to drop."""

    def is_indexed():
        indexes = {one["name"] for one in inspect(engine).get_indexes("audit_log")}
        return "ix_audit_log_words" in indexes

    def run(*statements):
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    to = migrate.config(empty)
    command.upgrade(to, "0050")
    engine = create_engine(empty, poolclass=NullPool)
    run(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE 'not allow-listed' USING ERRCODE = 'feature_not_supported'; END $$",
        "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION')"
        " EXECUTE FUNCTION refuse()",
    )
    command.upgrade(to, "0051")
    assert (version(engine), is_indexed()) == ("0051", False)
    assert "extensions" not in inspect(engine).get_schema_names()
    command.downgrade(to, "0050")
    run(
        "DROP EVENT TRIGGER refuse",
        "CREATE SCHEMA extensions",
        "CREATE EXTENSION pg_trgm SCHEMA extensions",
    )
    command.upgrade(to, "0051")
    assert is_indexed()
    command.downgrade(to, "0050")
    assert not is_indexed()
    run("SELECT extensions.similarity('a', 'b')")


def test_the_way_back_from_0060_ends_what_removed_orders_have_left(empty):
    """And leaves whole what the version before has recorded again, by the index of orders."""
    to = migrate.config(empty)
    command.upgrade(to, "0060")
    engine = create_engine(empty, poolclass=NullPool)
    gone, again = new_id(), new_id()
    entry = (
        "INSERT INTO order_status_history (event_id, order_id, tracking_status, note, at, applied)"
        " VALUES (gen_random_uuid(), :id, 'PENDING', '', now(), true)"
    )
    with engine.begin() as connection:
        for id_ in (gone, again):
            connection.execute(text(entry), {"id": id_})
            connection.execute(text("INSERT INTO removed_orders VALUES (:id, :id)"), {"id": id_})
        connection.execute(
            text(
                "INSERT INTO orders (id, account_id, customer_name, customer_email, customer_phone,"
                " item_summary, address, tracking_status, status_at, status_event_id, accepted_at)"
                " VALUES (:id, :id, '', '', '', '', '', 'PENDING', now(), :id, now())"
            ),
            {"id": again},
        )
    command.downgrade(to, "0059")
    with engine.connect() as connection:
        left = connection.scalars(text("SELECT order_id FROM order_status_history")).all()
    assert left == [again]
    command.upgrade(to, "head")


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


def test_a_lost_database_is_set_aside_by_the_printed_steps(database, database_url, db, tmp_path):
    """As often as they are pasted; and not while anybody is connected to it."""
    name = "recovered"  # the server has one of the printed name
    to = make_url(database.url(name))
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PGHOST": to.host, "PGPORT": str(to.port), "PGUSER": to.username, "PGPASSWORD": to.password,
        "DATABASE_URL": database.url(name),
        "SERVICE_PASSWORDS": service_passwords(database.url(name)),
    }  # fmt: skip
    kept = account(db).id
    dumped = make_url(database_url).database
    dump = ("pg_dump", "--format=custom", f"--file={name}.dump", dumped)
    subprocess.run(dump, cwd=tmp_path, env=environment, check=True)
    steps = block((ROOT / "docs" / "recovery.md").read_text(), "### The lost one is set aside")
    steps = steps.replace("order_fellow", name)

    def paste():
        done = subprocess.run(
            ("bash",), input=steps, cwd=tmp_path, env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr

    def made():
        return set(db.scalars(text("SELECT datname FROM pg_database"))) - before

    database.execute(f"CREATE DATABASE {name}")
    before = set(db.scalars(text("SELECT datname FROM pg_database")))
    db.commit()
    engine = create_engine(database.url(name))
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE registered_since ()"))
            code, said = paste()
            assert (code != 0, "is being accessed by other users" in said) == (True, True), said
            assert made() == set(), "nothing of persons is left of it"
        engine.dispose()
        code, said = paste()
        assert code == 0, said
        (lost,) = (one for one in made() if "_lost_" in one)
        assert tables(database.url(lost)) == {"registered_since"}
        assert "registered_since" not in tables(database.url(name))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT id FROM accounts")) == kept
    finally:
        engine.dispose()
        for one in (*made(), name):
            database.execute(f"DROP DATABASE {one} WITH (FORCE)")
