"""Both programs by raw sockets: heads without bound, slow clients, bodies nobody wants."""

import json
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from services.ops.users import sessions, users
from tests.integration.arrange import PATIENCE, resident, workers
from tests.integration.conftest import running_ingress
from tests.integration.ops.console.running import running_console

REQUEST_SECONDS = "1"
PASSWORD = "correct horse battery"


@dataclass
class Program:
    """A program of ours.

    Attributes:
        url: where it listens.
        pid: of gunicorn, whose only child is the worker.
        page: something that it answers with 200.
        form: a path that takes a body from people who are nobody yet.
        database_url: its database, as the administrator.
    """

    url: str
    pid: int
    page: str
    form: str
    database_url: str

    def connect(self):
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)

    def look(self):
        """Give the status of its page."""
        return httpx.get(self.url + self.page, timeout=PATIENCE).status_code

    def exchange(self, *parts):
        """Send all, and give what is answered until the other side closes."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read(connection)


def read(connection):
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    return received


@pytest.fixture(scope="module", params=["ingress", "console"])
def program(request, module_amqp_url, module_database_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    where = (folder, module_amqp_url, module_database_url)
    with ExitStack() as stack:
        if request.param == "console":
            url, pid = stack.enter_context(running_console(*where, REQUEST_SECONDS=REQUEST_SECONDS))
            found = Program(url, pid, "/sign-in", "/sign-in", module_database_url)
        else:
            api = stack.enter_context(
                running_ingress(*where, WEB_CONCURRENCY="1", REQUEST_SECONDS=REQUEST_SECONDS)
            )
            login = "/api/v1/users/auth/login/"
            found = Program(api.url, api.pid, "/api/v1/docs/", login, module_database_url)
        yield found


def head(*lines, target=b"/healthz"):
    return b"\r\n".join((b"GET %s HTTP/1.1" % target, b"Host: fellow", *lines, b"", b""))


def refusal(received):
    """Give status and code of the last answer."""
    top, _, body = received.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    assert b"connection: close" in top.lower()
    return int(top.split()[0]), json.loads(body)["code"]


BEGUN = head()[:-2]
BROWSER = b"Cookie: fellow_form=x\r\n"
"""Without a cookie of ours no form is read."""
TOO_MUCH = {
    "200,000 equal fields": (BEGUN + b"A: b\r\n" * 200_000 + b"\r\n", 431, "head_too_large"),
    "400,000 different names": (
        BEGUN + b"".join(b"N%d: v\r\n" % n for n in range(400_000)) + b"\r\n",
        431,
        "head_too_large",
    ),
    "one field of 50 MB": (BEGUN + b"A: " + b"a" * 50_000_000, 431, "head_too_large"),
    "a path of 100,000 bytes": (head(target=b"/" + b"p" * 100_000), 414, "url_too_long"),
    "a query of 100,000 bytes": (head(target=b"/?" + b"q" * 100_000), 414, "url_too_long"),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_too_much_is_refused_and_leaves_nothing_behind(program, kind):
    sent, status, code = TOO_MUCH[kind]
    (worker,) = workers(program.pid)
    for _ in range(20):  # what it needs to work at all
        program.look()
        program.exchange(head(*[b"A: b"] * 101))
    # Beside it the console takes samples and does its chores, which it needs memory for once: what
    # is kept of a head is kept each time.
    grown = []
    while len(grown) < 3 and (not grown or grown[-1] >= 1.1):
        before = resident(worker)
        for _ in range(5):
            assert refusal(program.exchange(sent)) == (status, code)
        assert program.look() == 200
        grown.append(resident(worker) / before)
    assert grown[-1] < 1.1, grown
    assert workers(program.pid) == [worker]


def test_http_0_9_is_refused(program):
    assert refusal(program.exchange(b"GET /healthz\r\n\r\n")) == (400, "bad_request")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHo", b"GET /"], ids=["field", "target"])
def test_half_a_head_is_a_408(program, sent):
    assert refusal(program.exchange(sent)) == (408, "request_timeout")


def test_half_a_body_is_a_408_also_on_a_kept_connection(program):
    with program.connect() as connection:
        connection.sendall(head())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        target = program.form.encode()
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: fellow\r\n%s" % (target, BROWSER))
        connection.sendall(b"Content-Length: 10\r\n\r\nhalf")
        assert refusal(read(connection)) == (408, "request_timeout")


def test_many_who_send_half_are_all_ended_and_keep_nobody_waiting(program):
    opened = [program.connect() for _ in range(50)]
    for connection in opened:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: f")
    assert program.look() == 200
    for connection in opened:
        with connection:
            assert refusal(read(connection)) == (408, "request_timeout")


@pytest.mark.parametrize(
    ("target", "length", "status"), [("/nowhere", 10, 404), (None, 10_000_000, 413)]
)
def test_a_body_that_the_head_speaks_against_is_not_asked_for(program, target, length, status):
    target = (target or program.form).encode()
    origin = b"Origin: %s\r\n" % program.url.encode()
    received = program.exchange(
        b"POST %s HTTP/1.1\r\nHost: fellow\r\n%s%sExpect: 100-continue\r\n"
        % (target, origin, BROWSER),
        b"Content-Length: %d\r\n\r\n" % length,
    )
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in received.lower()


def test_a_body_that_is_wanted_is_asked_for(program):
    with program.connect() as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: fellow\r\nConnection: close\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n%s\r\n" % (program.form.encode(), BROWSER)
        )
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read(connection).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize("program", ["console"], indirect=True)
def test_a_page_that_stays_open_is_no_slow_request(program, configure):
    configure()
    engine = create_engine(program.database_url)
    with Session(engine) as session, session.begin():
        users.put(session, "ada", "act", PASSWORD)
        ada = users.verify(session, "ada", PASSWORD)
        token = sessions.start(session, ada)
    engine.dispose()
    with program.connect() as connection:
        cookie = f"Cookie: fellow_session={token}".encode()
        connection.sendall(head(cookie, target=b"/live/overview"))
        began = time.monotonic()
        received = b""
        while time.monotonic() - began < 3 * float(REQUEST_SECONDS):
            chunk = connection.recv(65_536)
            assert chunk, received
            received += chunk
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"data: " in received.partition(b"\r\n\r\n")[2]
