"""PostgreSQL killed, stopped, full, locked, cut off."""

import threading

import pytest
from alembic import command
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from shared.db import migrate

AWAY_SECONDS = 60.0
EARLIER = "0056"


@pytest.fixture(autouse=True)
def database_is_back(stand, whole):
    yield
    stand.books.open()


def test_killed_and_started_again(stand):
    with stand.load() as load:
        for _ in range(3):
            stand.go_on(1)
            stand.database.kill()
            stand.go_on(1)
            stand.database.start()
            stand.go_on(2)
    stand.settle(load).accepted_all()


def test_stopped_for_a_while(stand):
    with stand.load() as load:
        stand.go_on(1)
        stand.database.stop()
        stand.repeat(AWAY_SECONDS, lambda: stand.go_on(1))
        stand.database.start()
    balance = stand.settle(load)
    balance.accepted_all()
    assert balance.doubled == 0


def test_connections_that_are_cut(stand):
    with stand.load() as load:
        for _ in range(6):
            stand.go_on(stand.rng.uniform(0.3, 1.0))
            stand.books.cut()
            stand.go_on(stand.rng.uniform(0.1, 1.0))
            stand.books.open()
    stand.settle(load).accepted_all()


def test_a_database_that_falls_silent(stand):
    with stand.load(rate=60) as load:
        stand.go_on(1)
        stand.books.stall()
        stand.go_on(8)
        stand.books.open()
        stand.go_on(1)
    stand.settle(load).accepted_all()


def take_every_connection(stand, held):
    """Until the server has none left."""
    with pytest.raises(OperationalError, match=r"too many clients|slots are reserved"):
        hold(stand, held)


def hold(stand, held):
    while True:
        held.append(create_engine(stand.engine.url).connect())


def test_too_many_connections(stand):
    held = []
    others = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name IN ('order-fellow', 'relay-listen')"
    )
    try:
        with stand.load() as load:
            stand.go_on(1)
            take_every_connection(stand, held)
            held[0].execute(others)
            take_every_connection(stand, held)
            stand.go_on(4)
            release_connection(held)
    finally:
        release_connection(held)
    stand.settle(load).accepted_all()


def release_connection(held):
    while held:
        connection = held.pop()
        connection.close()
        connection.engine.dispose()


def test_a_lock_that_is_held(stand):
    """As a careless ALTER TABLE would: nothing can be written until it lets go."""
    with stand.load() as load, stand.engine.connect() as connection:
        stand.go_on(1)
        connection.execute(text("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"))
        stand.go_on(30)
        connection.rollback()
    stand.settle(load).accepted_all()


def version(stand):
    with stand.engine.connect() as connection:
        return connection.scalar(text("SELECT version_num FROM alembic_version"))


def test_migrations_run_while_orders_flow(stand):
    """Back and forth: a process that misses a table tries again, and loses nothing meanwhile."""
    for _ in range(3):
        # Each time with orders of its own: one that missed a table three times would go on only
        # after ten minutes, as a part of those do that fail for the third time (RETRY_DELAYS).
        with stand.load() as load:
            stand.go_on(1)
            url = stand.engine.url.render_as_string(hide_password=False)
            command.downgrade(migrate.config(url), EARLIER)
            assert version(stand) == EARLIER
            stand.go_on(0.5)
            thread = threading.Thread(target=migrate.upgrade, args=(url,))
            thread.start()
            thread.join()
            assert version(stand) > EARLIER
        stand.settle(load).accepted_all()
