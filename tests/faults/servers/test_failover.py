"""The primary dies for good, and its synchronous standby takes over; `DATABASE_URL` names both."""

import pytest
from sqlalchemy import make_url, text

from stack.servers.credentials import as_service
from stack.servers.postgres import PostgreSQL
from stack.servers.sources import install_missing
from tests.faults.servers.standby import Standby
from tests.integration.arrange import until


@pytest.fixture(scope="module")
def pair(open_folder):
    install_missing(needs_broker=False)
    primary = PostgreSQL(open_folder / "primary", durable=False)
    standby = Standby(open_folder / "standby", primary)
    try:
        primary.start()
        standby.start()
        # Else what was committed a moment before the end would be lost with the primary.
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        yield primary, standby
    finally:
        standby.close()
        primary.close()


@pytest.fixture(scope="module")
def books_url(pair):
    return pair[0].url()


@pytest.fixture(scope="module")
def service_environment(pair):
    """Both hosts, in the form that SQLAlchemy and libpq both read."""
    urls = [make_url(server.url()) for server in pair]
    both = urls[0].update_query_dict(
        {
            "host": ",".join(str(url.host) for url in urls),
            "port": ",".join(str(url.port) for url in urls),
            "target_session_attrs": "read-write",
        }
    ).render_as_string(hide_password=False)  # fmt: skip
    return lambda name: {"DATABASE_URL": as_service(both, name)}


def test_the_standby_is_promoted(stand, pair):
    primary, standby = pair
    with stand.engine.connect() as connection:
        state = text("SELECT sync_state FROM pg_stat_replication")
        until(lambda: connection.execute(state).scalar() in ("sync", "quorum"), "in step")
    with stand.load() as load:
        stand.go_on(3)
        primary.kill()
        stand.go_on(3)
        standby.promote()
        stand.go_on(3)
    stand.move_books(standby.url())
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0
