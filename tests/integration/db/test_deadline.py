"""What a thread has no time left for leaves no connection behind, and none that others get."""

import socket
import traceback
from contextlib import closing

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.ops.monitoring.snapshot import SnapshotCollector
from shared.db import deadline
from shared.db.session import make_engine
from tests.integration.arrange import until

ONE = text("SELECT 1")


@pytest.fixture
def engine(settings):
    made = make_engine(settings, pool_size=1)
    yield made
    made.dispose()


def test_an_error_says_what_is_wrong_and_nothing_of_the_row(engine):
    """The server's DETAIL has all of it: it would be in the log, and with a dead letter."""
    row = {"name": "Zoe Doe"}
    with Session(engine) as session:
        session.execute(text("CREATE TEMP TABLE said (name text CHECK (name = ''))"))
        with pytest.raises(IntegrityError) as caught:
            session.execute(text("INSERT INTO said VALUES (:name)"), row)
    told = f"{caught.value} {''.join(traceback.format_exception(caught.value))}"
    assert 'violates check constraint "said_name_check"' in told
    assert "Zoe" not in told


def use_up():
    deadline._own.budget.left = 0.0


def commit(session):
    use_up()
    session.commit()


def roll_back(session):
    use_up()
    session.rollback()


def ask(session):
    use_up()
    session.scalar(ONE)


@pytest.mark.parametrize("act", [commit, roll_back, ask])
def test_time_that_is_used_up_between_two_questions_costs_nobody_else(engine, act):
    """The connection is well, and amid a transaction: it must go, not come back."""

    @deadline.within(60)
    def run():
        with Session(engine) as session:
            session.execute(text("CREATE TABLE seen (number int)"))
            act(session)

    with pytest.raises(deadline.NoAnswerError):
        run()
    with Session(engine) as session, session.begin():
        assert session.scalar(ONE) == 1
        assert session.scalar(text("SELECT to_regclass('seen')")) is None
    # Its backend ends when it hears of it. By itself each statement sees who is there now.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as left:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        amid = text(f"{query} AND state LIKE 'idle in transaction%'")
        until(lambda: left.scalar(amid) == 0, "it is gone")


@pytest.mark.parametrize("waits_for", ["an answer", "a lock"])
def test_what_is_cut_ends_in_the_server_too(engine, database_url, waits_for):
    """Else each that is out of time leaves a statement behind, and a connection of the few."""
    statement = "SELECT pg_sleep(600)" if waits_for == "an answer" else "LOCK TABLE accounts"

    @deadline.within(0.5)
    def run():
        with Session(engine) as session:
            session.execute(text(statement))

    at_work = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'active' AND query = :query"
    )
    other = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with Session(create_engine(database_url)) as holding, other.connect() as looking:
        holding.execute(text("SELECT count(*) FROM accounts"))  # which a lock of it waits for
        with pytest.raises(deadline.NoAnswerError):
            run()
        until(lambda: looking.scalar(at_work, {"query": statement}) == 0, "it is ended")
    other.dispose()


def test_who_has_no_limit_has_all_the_time(engine):
    assert deadline.left() == float("inf")
    with deadline.within(5), Session(engine) as session:
        session.scalar(ONE)
        assert 0 < deadline.left() < 5


def test_of_several_hosts_a_silent_one_leaves_time_for_the_next(settings, configure):
    """As after a failover, when the machine of the first one is gone without a word."""
    url = make_url(settings.database_url)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = [f"127.0.0.1:{silent.getsockname()[1]}", f"{url.host}:{url.port}"]
        both = url.set(host=None, port=None).update_query_dict({"host": hosts})
        config = configure(database_url=both.render_as_string(hide_password=False))
        made = make_engine(config, pool_size=1)
        with deadline.within(deadline.ANSWER_SECONDS), made.connect() as connection:
            assert connection.scalar(ONE) == 1
        made.dispose()
        with closing(SnapshotCollector(config)) as looker:
            looker.ask_database()
