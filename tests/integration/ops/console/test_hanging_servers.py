"""A console whose database, or broker, keeps its connections and does nothing.

Each page answers, and says so; and nobody's open page keeps another one waiting.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from services.ops.console.app import THREADS
from services.ops.console.web.mount import TOOK_LONG
from shared.bus.contract import topology
from shared.http.errors import OVERLOADED
from shared.web.answers import DATABASE_AWAY
from tests.integration.arrange import until
from tests.integration.gate import Gate
from tests.integration.ops.console.pages.test_masked_pages import signed_in
from tests.integration.ops.console.running import running_console

MANY = 3 * THREADS
LONGEST = 120.0  # seconds: nothing here is about how fast

SLOW = TOOK_LONG.format(5)


@contextmanager
def paused(database):
    database.pause()
    try:
        yield
    finally:
        database.unpause()


def test_every_page_answers_while_the_database_hangs(
    database, amqp_url, database_url, tmp_path, db
):
    with (
        running_console(tmp_path, amqp_url, database_url) as (url, _),
        signed_in(url, db, "act") as client,
        ThreadPoolExecutor(MANY) as browsers,
        ExitStack() as open_pages,
    ):
        client.timeout = LONGEST
        for _ in range(MANY):
            stream = open_pages.enter_context(client.stream("GET", "/live/overview"))
            assert stream.status_code == 200
        with paused(database):
            # More than there are threads, none of which the console has been told about.
            for answer in browsers.map(client.get, ["/kyc"] * MANY):
                # The last of them wait for a thread, and are refused after ten seconds.
                said = [words in answer.text for words in (DATABASE_AWAY, SLOW, OVERLOADED[2])]
                assert (answer.status_code, any(said)) == (503, True), answer.text
            overview = client.get("/")
            assert overview.status_code == 200
            until(lambda: "The database does not answer" in client.get("/").text, "it is said")
            with client.stream("GET", "/live/overview") as stream:
                assert stream.status_code == 200
                assert "The database does not answer" in next(stream.iter_lines())
            assert client.get("/kyc").status_code == 503
        until(lambda: client.get("/kyc").status_code == 200, "it is back")


@pytest.mark.parametrize("page", ["/ladder", f"/dead/{topology.ORDERS_INTAKE.name}"])
def test_a_broker_that_hangs_is_known_and_not_waited_for(
    page, amqp_url, database_url, tmp_path, db
):
    with (
        Gate(amqp_url) as gate,
        running_console(tmp_path, gate.url, database_url) as (url, _),
        signed_in(url, db, "act") as client,
    ):
        client.timeout = LONGEST
        until(lambda: client.get(page).status_code == 200, "it is there")
        gate.stall()
        until(lambda: "The broker does not answer" in client.get("/").text, "it is said")
        answer = client.get(page)
        assert answer.status_code == 503
        assert "Nothing was sent to it" in answer.text
        gate.open()
        until(lambda: client.get(page).status_code == 200, "it is back")
