"""What a thread has no time left for leaves no connection behind, and none that others get."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db import deadline
from shared.db.session import make_engine

ONE = text("SELECT 1")


@pytest.fixture
def engine(settings):
    made = make_engine(settings, pool_size=1)
    yield made
    made.dispose()


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
    with engine.connect() as left:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert left.scalar(text(f"{query} AND state LIKE 'idle in transaction%'")) == 0


def test_who_has_no_limit_has_all_the_time(engine):
    assert deadline.left() == float("inf")
    with deadline.within(5), Session(engine) as session:
        session.scalar(ONE)
        assert 0 < deadline.left() < 5
