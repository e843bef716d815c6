"""Who listens is woken at once, also after its connection was lost."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from shared.bus.consume.rehearsals import requests
from shared.bus.contract import topology
from shared.bus.contract.events import encode
from shared.db.listening import Listener
from tests.integration.arrange import order_created, until
from tests.integration.rehearsal.messages import arriving

FOR_EVER = 3_600.0


@pytest.fixture
def stopping():
    event = threading.Event()
    yield event
    event.set()


def ask(db):
    incoming = arriving("order.created", encode(order_created()), key="orders.intake")
    requests.ask(db, topology.ORDERS_INTAKE.name, incoming)
    db.commit()


def listens(db):
    db.rollback()
    there = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests-listen'"
    return db.scalar(text(there))


def test_a_rehearsal_that_is_asked_for_wakes_who_answers(db, database_url, stopping):
    listener = Listener(database_url, requests.CHANNEL, "tests-listen")
    with ThreadPoolExecutor(1) as thread:
        # What was said before it listened, it does not know.
        assert thread.submit(listener.wait, stopping, FOR_EVER).result()
        waiting = thread.submit(listener.wait, stopping, FOR_EVER)
        assert not waiting.done()
        ask(db)
        assert waiting.result()
        # What is said while it works is not missed.
        ask(db)
        assert thread.submit(listener.wait, stopping, FOR_EVER).result()
        waiting = thread.submit(listener.wait, stopping, FOR_EVER)
        lost = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        db.execute(text(f"{lost} WHERE application_name = 'tests-listen'"))
        db.commit()
        assert waiting.result(), "somebody may have asked while nobody listened"
        until(lambda: listens(db) == 1, "it listens again")
        waiting = thread.submit(listener.wait, stopping, FOR_EVER)
        ask(db)
        assert waiting.result()
        waiting = thread.submit(listener.wait, stopping, FOR_EVER)
        stopping.set()
        assert not waiting.result()


def test_while_the_database_is_away_it_waits_as_long_as_it_shall(stopping, unused_port):
    nowhere = f"postgresql+psycopg2://x@127.0.0.1:{unused_port()}/x"
    assert not Listener(nowhere, requests.CHANNEL, "tests-listen").wait(stopping, 0.1)
