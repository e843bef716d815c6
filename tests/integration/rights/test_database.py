"""In the database each service reads and writes its own tables, and is refused everything else."""

import pytest
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session

from shared.bus.contract import topology
from shared.db import grants
from shared.db.models import Base
from shared.security.service_accounts import SERVICES, login
from stack.servers.credentials import as_service
from tests.integration.arrange import account

# S(elect), I(nsert), U(pdate), D(elete); s: some columns.
MAY = {
    "ingress": {
        "accounts": "SIU",
        "account_sessions": "SIUD",
        "attempt_counts": "SIUD",
        "known_networks": "SID",
        "pending_proofs": "SIUD",
        "email_senders": "SIU",
        "one_time_codes": "SIUD",
        "revoked_tokens": "SID",
        "kyc_applications": "SI",
        "webhook_secrets": "SIU",
        "webhook_public_keys": "SI",
        "webhook_requests": "SI",
        "webhook_secret_use": "SIU",
        "webhook_policies": "SI",
        "orders": "S",
        "order_status_history": "S",
        "order_conflicts": "S",
        "removed_orders": "S",
        "waiting_updates": "S",
        "email_deliveries": "S",
        "suppressions": "SID",
        "audit_log": "s",
        "outbox": "I",
        "service_heartbeats": "SIUD",
    },
    "kyc": {
        "accounts": "s",
        "kyc_applications": "SU",
        "kyc_decisions": "SIU",
        "ops_users": "s",
        "rehearsals": "SD",
        "webhook_secrets": "s",
        "webhook_public_keys": "s",
        "inbox": "SIUD",
        "outbox": "I",
        "service_heartbeats": "SIUD",
    },
    "secrets": {
        "accounts": "s",
        "kyc_applications": "S",
        "webhook_secrets": "SIU",
        "webhook_public_keys": "S",
        "webhook_secret_use": "S",
        "webhook_policies": "SI",
        "rehearsals": "SD",
        "inbox": "SIUD",
        "outbox": "I",
        "service_heartbeats": "SIUD",
    },
    "orders": {
        "accounts": "s",
        "orders": "SIUD",
        "order_status_history": "SID",
        "order_conflicts": "SID",
        "removed_orders": "SI",
        "waiting_updates": "SID",
        "awaited_orders": "SID",
        "rehearsals": "SD",
        "inbox": "SIUD",
        "outbox": "I",
        "service_heartbeats": "SIUD",
    },
    "notifier": {
        "accounts": "s",
        "email_senders": "S",
        "suppressions": "SIUD",
        "webhook_policies": "s",
        "orders": "s",
        "email_deliveries": "SIUD",
        "email_leases": "SIUD",
        "refusal_warnings": "SIUD",
        "rehearsals": "SD",
        "inbox": "SIUD",
        "outbox": "I",
        "service_heartbeats": "SIUD",
    },
    "audit": {
        "audit_log": "SI",
        "rehearsals": "SD",
        "inbox": "SIUD",
        "service_heartbeats": "SIUD",
    },
    "relay": {"outbox": "SD", "service_heartbeats": "SIUD"},
    "ops": {
        "accounts": "s",
        "pending_proofs": "s",
        "known_networks": "s",
        "account_sessions": "s",
        "kyc_applications": "S",
        "kyc_decisions": "S",
        "kyc_notes": "SI",
        "webhook_secrets": "s",
        "webhook_public_keys": "S",
        "webhook_requests": "S",
        "webhook_secret_use": "S",
        "webhook_policies": "S",
        "orders": "S",
        "order_status_history": "S",
        "order_conflicts": "S",
        "waiting_updates": "S",
        "awaited_orders": "S",
        "email_deliveries": "S",
        "email_senders": "S",
        "suppressions": "S",
        "inbox": "S",
        "outbox": "SID",
        "audit_log": "S",
        "service_heartbeats": "S",
        "ops_users": "SIUD",
        "ops_sessions": "SIUD",
        "ops_second_factors": "SIUD",
        "ops_recovery_codes": "SID",
        "ops_attempt_counts": "SIUD",
        "ops_troubles": "SIUD",
        "rehearsals": "SID",
    },
    "portal": {"portal_sessions": "SIUD", "service_heartbeats": "SIUD"},
    "proof": {"service_heartbeats": "SIUD"},
}


def refused(engine, statement, by=""):
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            return isinstance(error.orig, InsufficientPrivilege) and by in str(error.orig)
        finally:
            connection.rollback()
    return False


@pytest.fixture
def role(module_database_url, request):
    engine = create_engine(as_service(module_database_url, request.param))
    yield request.param, engine
    engine.dispose()


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_nobody_empties_the_audit_log(role):
    _, engine = role
    assert refused(engine, "TRUNCATE audit_log")
    assert refused(engine, "ALTER TABLE audit_log DISABLE TRIGGER ALL")


def may(engine, table):
    """What a role can do to a table, by doing it."""
    column = next(iter(table.columns)).name
    tried = {
        "S": f"SELECT * FROM {table.name} LIMIT 1",
        "I": f"INSERT INTO {table.name} DEFAULT VALUES",
        "U": f"UPDATE {table.name} SET {column} = NULL WHERE false",
        "D": f"DELETE FROM {table.name} WHERE false",
    }
    # Some rows of it may still be others' alone.
    tried = {letter: refused(engine, how, "permission denied") for letter, how in tried.items()}
    letters = "".join(letter for letter, is_refused in tried.items() if not is_refused)
    some = f"SELECT {'id' if 'id' in table.columns else column} FROM {table.name} LIMIT 1"
    if "S" not in letters and not refused(engine, some):
        letters = "s" + letters
    return letters


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_what_it_may_do_to_each_table(role):
    service, engine = role
    found = {table.name: may(engine, table) for table in Base.metadata.tables.values()}
    assert {name: letters for name, letters in found.items() if letters} == MAY[service]


WRITES = (
    "message_id",
    "exchange",
    "routing_key",
    "type",
    "correlation_id",
    "source",
    "time",
    "body",
)


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_nobody_says_who_wrote_a_message_or_what_became_of_it(role):
    """Only the relay writes down what became of a row, and only ops staff mend one."""
    service, engine = role
    may_change = {
        "relay": {"attempts", "next_try_at", "parked_at", "reason"},
        "ops": {"correlation_id", "body", "next_try_at"},
    }
    for column in [column.name for column in Base.metadata.tables["outbox"].columns]:
        insert = f"INSERT INTO outbox ({column}) SELECT {column} FROM outbox WHERE false"
        if column not in (*WRITES, "traceparent"):
            assert refused(engine, insert), column
        update = f"UPDATE outbox SET {column} = NULL"
        assert refused(engine, update) is (column not in may_change.get(service, ())), column


POLICIES = {
    "ingress": {"allowed_networks", "standard_webhooks_only"},
    "secrets": {"rate_per_second", "blocked_at"},
}


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_a_business_is_let_in_again_by_ops_staff_and_its_allowlist_is_its_own(role):
    service, engine = role
    for column in set().union(*POLICIES.values()):
        statement = f"UPDATE webhook_policies SET {column} = DEFAULT WHERE false"
        assert refused(engine, statement) is (column not in POLICIES.get(service, ())), column


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_nobody_changes_the_schema(role):
    _, engine = role
    for statement in (
        "CREATE TABLE mine (x int)",
        "DROP TABLE orders",
        "ALTER TABLE orders ADD COLUMN x int",
        "TRUNCATE orders",
        "CREATE ROLE another",
        "SET ROLE postgres",
        "COPY orders TO PROGRAM 'cat'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT rolpassword FROM pg_authid",
        "UPDATE alembic_version SET version_num = ''",
    ):
        assert refused(engine, statement), statement


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_only_the_ingress_keeps_the_partitions_of_the_log_and_nobody_touches_one(role):
    service, engine = role
    for call in ("(30)", "(30, now())"):
        statement = f"SELECT keep_webhook_request_partitions{call}"
        assert refused(engine, statement) is (service != "ingress"), statement
    with engine.connect() as connection:
        (name,) = connection.execute(
            text("SELECT min(relname) FROM pg_class WHERE relname LIKE 'webhook_requests_2%'")
        ).one()
    for statement in (
        f"SELECT * FROM partitions.{name}",
        f"DROP TABLE partitions.{name}",
        "CREATE TABLE partitions.mine (x int)",
    ):
        assert refused(engine, statement), statement


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_only_ops_staff_erase_a_customer(role):
    service, engine = role
    assert refused(engine, "SELECT * FROM erase_customer('a@b.example')") is (service != "ops")
    for function in (
        "erase_suppressed_address('a@b.example')",
        "lift_suppression(gen_random_uuid())",
    ):
        assert refused(engine, f"SELECT {function}") is (service != "ops")
    assert refused(engine, "UPDATE orders SET customer_name = ''") is (service != "orders")


@pytest.mark.parametrize(
    "role",
    [s for s in SERVICES if s not in ("ingress", "relay", "audit", "portal", "proof")],
    indirect=True,
)
def test_no_consumer_sees_a_passwords_hash(role):
    _, engine = role
    assert refused(engine, "SELECT password_hash FROM accounts")
    assert not refused(engine, "SELECT company_name FROM accounts")


@pytest.mark.parametrize("role", ["ops"], indirect=True)
def test_ops_staff_see_no_sealed_secret(role):
    _, engine = role
    for column in ("sealed", "key_hash"):
        assert refused(engine, f"SELECT {column} FROM webhook_secrets")
    assert not refused(engine, "SELECT id, state FROM webhook_secrets")


def test_a_role_without_a_password_cannot_sign_in(module_database_url):
    wrong = as_service(module_database_url, "kyc").replace(login("kyc") + ":", login("kyc") + ":x")
    engine = create_engine(wrong)
    with pytest.raises(DBAPIError, match="authentication failed"):
        engine.connect()
    engine.dispose()


def test_what_runs_with_its_owners_rights_finds_no_name_of_its_callers(database_url):
    """The temporary schema comes first where `search_path` does not say that it is last."""
    owner = create_engine(database_url)
    paths = text(
        "SELECT oid::regprocedure::text, proconfig FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND (prosecdef OR proconfig IS NOT NULL)"
    )
    with owner.connect() as connection:
        found = {name: said[0] for name, said in connection.execute(paths)}
    owner.dispose()
    assert found
    last = "search_path=pg_catalog, pg_temp"
    assert {name: path for name, path in found.items() if path != last} == {}
    engine = create_engine(as_service(database_url, "ingress"))
    with engine.connect() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION pg_temp.caught() RETURNS boolean LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'caught as %', current_user; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TEMP VIEW pg_class AS SELECT tableoid, * FROM pg_catalog.pg_class"
                " WHERE pg_temp.caught()"
            )
        )
        connection.execute(text("GRANT SELECT ON pg_temp.pg_class TO PUBLIC"))
        connection.execute(text("SELECT keep_webhook_request_partitions(30, now())"))
    engine.dispose()


@pytest.mark.parametrize("role", SERVICES, indirect=True)
def test_nobody_hangs_a_trigger_of_ours_on_a_table_of_their_own(role):
    """It would run with its owner's rights, on rows that they made up: close any account."""
    _, engine = role
    assert refused(
        engine,
        "CREATE TEMP TABLE mine (id uuid, closed_at timestamptz);"
        " CREATE TRIGGER mine AFTER UPDATE ON mine FOR EACH ROW"
        " EXECUTE FUNCTION public.close_account();"
        " INSERT INTO mine VALUES (gen_random_uuid());"
        " UPDATE mine SET closed_at = now()",
        "close_account",
    )


def test_what_a_trigger_does_with_its_owners_rights_it_does_for_our_tables_alone(database_url):
    """Whoever may hang it on another one: each of the kind, those of later migrations too."""
    owner = create_engine(database_url)
    of = text(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND prosecdef AND prorettype = 'trigger'::regtype"
    )
    with owner.connect() as connection:
        names = list(connection.scalars(of))
        connection.execute(text("CREATE TEMP TABLE mine (id uuid)"))
        connection.commit()
        assert "close_account" in names
        for name in names:
            hung = (
                f"CREATE TRIGGER mine BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
            connection.execute(text(hung))
            with pytest.raises(DBAPIError, match="this is for tables of public"):
                connection.execute(text("INSERT INTO mine VALUES (gen_random_uuid())"))
            connection.rollback()
    owner.dispose()


def test_a_function_is_for_who_needs_it_again_after_a_restore_without_roles(database_url):
    """`pg_restore` gives and takes a function's rights in one piece, which fails as a whole."""
    owner = create_engine(database_url)
    may = text(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND has_function_privilege(:role, oid, 'execute') ORDER BY 1"
    )
    with owner.begin() as connection:
        connection.execute(text("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC"))
        grants.apply(connection, {})
        for service in SERVICES:
            found = [
                name.replace(",", ", ")
                for name in connection.scalars(may, {"role": login(service)})
            ]
            assert found == sorted(grants.FUNCTIONS.get(service, ())), service
    owner.dispose()


def test_rights_that_somebody_added_go_with_the_next_migration(database_url):
    from shared.db import migrate

    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text(f"GRANT DELETE ON orders TO {login('kyc')}"))
    migrate.upgrade(database_url)
    with engine.connect() as connection:
        may = connection.execute(
            text(f"SELECT has_table_privilege('{login('kyc')}', 'orders', 'DELETE')")
        ).scalar()
    engine.dispose()
    assert may is False


def test_roles_that_may_not_be_made_are_named(database, database_url):
    from shared.config.environment import ConfigurationError

    database.execute("CREATE ROLE weak LOGIN PASSWORD 'weak'")
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            connection.execute(text(f"ALTER ROLE {login('relay')} RENAME TO relay_of_before"))
            connection.execute(text("SET ROLE weak"))
            with pytest.raises(ConfigurationError, match=r"fellow_relay.*CREATEROLE"):
                grants.apply(connection, {})
            connection.rollback()
    except ProgrammingError as error:
        raise AssertionError(str(error)) from None
    finally:
        engine.dispose()
        database.execute("DROP ROLE weak")


CONSUMERS = ("kyc", "secrets", "orders", "notifier", "audit")


@pytest.mark.parametrize("role", CONSUMERS, indirect=True)
def test_an_inbox_is_its_consumers(role, module_database_url):
    """Whoever could delete another's rows could have its messages handled again."""
    service, engine = role
    owner = create_engine(module_database_url)
    enter = "INSERT INTO inbox (consumer, message_id) VALUES ('services.{}', gen_random_uuid())"
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM inbox"))
        for other in CONSUMERS:
            connection.execute(text(enter.format(other)))
    for other in CONSUMERS:
        assert refused(engine, enter.format(other)) is (other != service)
    assert not refused(engine, enter.format(f"{service}/last without id"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE inbox SET handled_at = now() - interval '1 day'"))
        connection.execute(text("DELETE FROM inbox"))
    with owner.begin() as connection:
        left = connection.execute(text("SELECT consumer FROM inbox")).scalars().all()
    owner.dispose()
    assert sorted(left) == sorted(f"services.{other}" for other in CONSUMERS if other != service)


@pytest.mark.parametrize("role", ["ingress"], indirect=True)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "'approved'"),
        ("status", "'rejected'"),
        ("decided_by", "'ada'"),
        ("decided_at", "now()"),
        ("reason", "'known to us'"),
    ],
)
def test_the_ingress_decides_about_no_application(role, module_database_url, column, value):
    _, engine = role
    owner = create_engine(module_database_url)
    with Session(owner) as session:
        business = account(session).id
    owner.dispose()
    given = {
        "id": "gen_random_uuid()",
        "account_id": f"'{business}'",
        "business_registration_number": "'RC-1'",
        "business_address": "''",
        "contact_person_details": "''",
        "status": "'pending'",
    }

    def insert(**changes):
        values = given | changes
        columns, row = ",".join(values), ",".join(values.values())
        return f"INSERT INTO kyc_applications ({columns}) VALUES ({row})"

    assert refused(engine, insert(**{column: value}))
    assert not refused(engine, insert())


def heartbeat_of(service):
    # The relay's is of before services had names of their own there.
    return service if service == "relay" else f"services.{service}"


BEATING = tuple(service for service in SERVICES if service != "ops")


@pytest.mark.parametrize("role", BEATING, indirect=True)
def test_a_heartbeat_is_its_services(role, module_database_url):
    """Whoever could write another's would show it well while it is away, or hide it."""
    service, engine = role
    owner = create_engine(module_database_url)
    enter = (
        "INSERT INTO service_heartbeats VALUES ('{}', 'a:1', '1', now(), now(), '{{}}') "
        "ON CONFLICT (service, instance) DO UPDATE SET seen_at = now()"
    )
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM service_heartbeats"))
        for other in BEATING:
            connection.execute(text(enter.format(heartbeat_of(other))))
    for other in BEATING:
        assert refused(engine, enter.format(heartbeat_of(other))) is (other != service)
    with engine.begin() as connection:
        assert len(connection.execute(text("SELECT FROM service_heartbeats")).all()) == len(BEATING)
        connection.execute(text("UPDATE service_heartbeats SET version = 'mine'"))
    with owner.begin() as connection:
        changed = text("SELECT service FROM service_heartbeats WHERE version = 'mine'")
        assert connection.execute(changed).scalars().all() == [heartbeat_of(service)]
    other = heartbeat_of(next(one for one in BEATING if one != service))
    assert refused(engine, f"UPDATE service_heartbeats SET service = '{other}', instance = 'b'")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM service_heartbeats"))
    with owner.begin() as connection:
        left = connection.execute(text("SELECT service FROM service_heartbeats")).scalars().all()
    owner.dispose()
    assert sorted(left) == sorted(heartbeat_of(one) for one in BEATING if one != service)


@pytest.mark.parametrize("role", [*CONSUMERS, "ops"], indirect=True)
def test_a_rehearsal_is_of_a_services_own_queues(role, module_database_url):
    """The message that is asked about may be of a person whom another service alone knows."""
    service, engine = role
    owner = create_engine(module_database_url)
    queues = [queue.name for queue in topology.WORK_QUEUES]
    own = [name for name in queues if name.partition(".")[0] == service or service == "ops"]
    assert own
    ask = "INSERT INTO rehearsals (id, queue, message) VALUES (gen_random_uuid(), '{}', '')"
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM rehearsals"))
        for name in queues:
            connection.execute(text(ask.format(name)))
    with engine.begin() as connection:
        seen = connection.execute(text("SELECT queue FROM rehearsals")).scalars().all()
        assert sorted(seen) == sorted(own)
        if service != "ops":
            connection.execute(text("UPDATE rehearsals SET report = ''"))
        connection.execute(text("DELETE FROM rehearsals"))
    with owner.begin() as connection:
        left = connection.execute(text("SELECT queue, report FROM rehearsals")).all()
    owner.dispose()
    assert sorted(left) == sorted((name, None) for name in queues if name not in own)
