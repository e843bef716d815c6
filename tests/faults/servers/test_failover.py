"""The primary dies for good, its synchronous standby takes over, and the first comes back to follow
it; `DATABASE_URL` names both."""

import pytest
from sqlalchemy import make_url, text

from stack.servers.credentials import as_service
from stack.servers.listening import DidNotStartError
from stack.servers.postgres import PostgreSQL
from stack.servers.sources import install_missing
from tests.faults.servers.standby import Node, told
from tests.integration.arrange import until


@pytest.fixture(scope="module")
def pair(open_folder):
    install_missing(needs_broker=False)
    primary = Node(open_folder / "primary", begins=True)
    standby = Node(open_folder / "standby", begins=False)
    primary.peer, standby.peer = standby, primary
    try:
        primary.start()
        told("### A second database beside one that is there", named(primary, standby))
        # From here on the other one answers whenever this one asks, but may take its time for it.
        primary.peer_seconds = 600
        yield primary, standby
    finally:
        standby.close()
        primary.close()


def named(*pair):
    """By the services of docker-compose.cluster.yml."""
    return dict(zip(("postgres", "postgres2"), pair, strict=True))


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


IN_STEP = text("SELECT sync_state FROM pg_stat_replication")
COUNT = text("SELECT count(*) FROM orders")


def test_the_standby_takes_over_and_the_first_comes_back_to_follow(stand, pair):
    primary, standby = pair
    waits_for(stand.engine)
    with stand.load() as load:
        stand.go_on(3)
        primary.kill()
        stand.go_on(3)
        told("### The second database takes over", named(*pair))
        stand.go_on(3)
        # A host that starts anew starts both, and neither has an answer of the other.
        standby.stop()
        refuses(primary, "this one led before: two must not")
        standby.start()
        # Of one that could not be told the other one's word is all there is.
        (primary.cluster / "retired").unlink()
        refuses(primary, "this one led before: two must not")
        told("### The one that led before", named(*pair))
        stand.go_on(1)
    stand.move_books(standby.url())
    waits_for(stand.engine)
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0
    with stand.engine.connect() as leading:
        recorded = leading.scalar(COUNT)
    # And back again, with the names exchanged.
    told("### The second database takes over", named(standby, primary))
    told("### The one that led before", named(standby, primary))
    stand.move_books(primary.url())
    waits_for(stand.engine)
    with stand.engine.connect() as leading:
        assert leading.scalar(COUNT) == recorded
    stand.ready()


def test_an_empty_volume_is_no_database_beside_a_copy(pair):
    """All services would take it, since they look there first."""
    primary, standby = pair
    primary.stop()
    kept = primary.cluster.rename(primary.cluster.with_name("kept"))
    refuses(primary, "has a database and follows")
    # Nor while the other one is only about to start.
    standby.stop()
    primary.launch()
    standby.start()
    refuses(primary, "has a database and follows", PostgreSQL.wait)
    assert list(primary.cluster.iterdir()) == []
    primary.cluster.rmdir()
    kept.rename(primary.cluster)
    primary.start()


def refuses(server, why, start=PostgreSQL.start):
    with pytest.raises(DidNotStartError, match=why):
        start(server)


def waits_for(engine):
    """Commits wait for the one that follows.

    Each look is a transaction of its own: within one PostgreSQL keeps the list of its processes as
    it was at the first look (pgstat_read_current_status), and a follower that comes later is in
    none of the others.
    """

    def in_step():
        with engine.connect() as connection:
            return connection.scalar(IN_STEP) in ("sync", "quorum")

    until(in_step, "in step")
