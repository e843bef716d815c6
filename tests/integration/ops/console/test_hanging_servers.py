"""A console whose database, or broker, keeps its connections and does nothing.

Each page answers, and says so; and nobody's open page keeps another one waiting.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

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
SAID = "The database does not answer"
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
            # Nobody has looked yet. Who waits asks whether it answers at all, also those that wait
            # for a thread: they are more than there are.
            for answer in browsers.map(client.get, ["/kyc"] * MANY):
                said = [words in answer.text for words in (DATABASE_AWAY, SLOW, OVERLOADED[2])]
                assert (answer.status_code, any(said)) == (503, True), answer.text
            for path, status in (("/kyc", 503), ("/", 200)):
                answer = client.get(path)
                assert (answer.status_code, SAID in answer.text) == (status, True)
            until(lambda: SAID in client.get("/").text, "it is said")
            with client.stream("GET", "/live/overview") as stream:
                assert stream.status_code == 200
                assert SAID in next(stream.iter_lines())
            assert client.get("/kyc").status_code == 503
        until(lambda: client.get("/kyc").status_code == 200, "it is back")


def test_a_broker_that_hangs_is_known_and_not_waited_for(amqp_url, database_url, tmp_path, db):
    pages = ("/ladder", f"/dead/{topology.ORDERS_INTAKE.name}")
    with (
        Gate(amqp_url) as gate,
        running_console(tmp_path, gate.url, database_url) as (url, _),
        signed_in(url, db, "act") as client,
    ):
        client.timeout = LONGEST
        are_there = lambda: all(client.get(page).status_code == 200 for page in pages)  # noqa: E731
        until(are_there, "they are there")
        gate.stall()
        answer = client.get(pages[0])
        assert answer.status_code == 503
        assert "The broker does not answer: " in answer.text
        until(lambda: "The broker does not answer" in client.get("/").text, "it is said")
        for page in pages:
            answer = client.get(page)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), page
            assert "Nothing was sent to it" in answer.text, page
        gate.open()
        until(are_there, "they are back")
