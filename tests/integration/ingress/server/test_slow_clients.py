"""Clients that are slow, or silent: they are told, and nobody else waits for them."""

import contextlib
import json
import select
import socket
import time

import pytest
import sqlalchemy

from shared.db.models import WebhookSecret
from tests.integration.arrange import PATIENCE, sign, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, approved


@pytest.fixture(scope="module")
def impatient(module_amqp_url, module_database_url, tmp_path_factory, api):
    folder = tmp_path_factory.mktemp("impatient")
    with running_ingress(
        folder, module_amqp_url, module_database_url, WEB_CONCURRENCY="1", REQUEST_SECONDS="2"
    ) as found:
        yield found


def begin(api, sender, length, *, lines=()):
    """Send the head of a signed request, and nothing of its body.

    Args:
        length: declared; 0 for the body's own, None for one in chunks.
    """
    host, port = api.url.removeprefix("http://").split(":")
    raw = json.dumps(ORDER).encode()
    head = [f"{name}: {value}" for name, value in sign(sender.secret, raw).items()]
    text = "\r\n".join(
        (
            "POST /api/v1/webhooks/orders/ HTTP/1.1",
            "Host: fellow",
            "Transfer-Encoding: chunked"
            if length is None
            else f"Content-Length: {length or len(raw)}",
            *head,
            *lines,
        )
    )
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    connection.sendall(text.encode() + b"\r\n\r\n")
    return connection, raw


def answer(connection):
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("sent", [0, 10], ids=["nothing", "a little"])
def test_a_body_that_does_not_come_is_a_408(impatient, sent):
    sender = approved(impatient)
    connection, raw = begin(impatient, sender, 0)
    with connection:
        connection.sendall(raw[:sent])
        status, body = answer(connection)
    assert (status, body["code"]) == (408, "request_timeout")


def test_a_drop_at_a_time_is_a_408_too(impatient):
    sender = approved(impatient)
    connection, raw = begin(impatient, sender, 0)
    with connection:
        with contextlib.suppress(OSError):
            for byte in raw:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert answer(connection)[0] == 408


def test_a_head_that_does_not_end_is_a_408_also_on_a_kept_connection(impatient):
    sender = approved(impatient)
    host, port = impatient.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(b"POST /api/v1/webhooks/orders/ HTTP/1.1\r\nHost: f")
        assert answer(connection)[0] == 408
    connection, raw = begin(impatient, sender, 0)
    with connection:
        connection.sendall(raw)
        assert b" 201 " in connection.recv(65_536)
        connection.sendall(b"POST /api/v1/webhooks/orders/ HTTP/1.1\r\nHost: f")
        assert answer(connection)[0] == 408


def test_a_body_in_pieces_that_is_in_time_is_taken(api):
    sender = approved(api)
    connection, raw = begin(api, sender, 0, lines=("Connection: close",))
    with connection:
        connection.sendall(raw[:20])
        time.sleep(0.1)
        connection.sendall(raw[20:])
        assert answer(connection)[0] == 201


def test_two_hundred_who_are_silent_keep_nobody_waiting(impatient):
    sender = approved(impatient)
    silent = [begin(impatient, sender, 1000)[0] for _ in range(200)]
    try:
        assert {sender.send().status_code for _ in range(50)} == {201}
    finally:
        for connection in silent:
            connection.close()
    assert sender.send().status_code == 201


DOCS = b"GET /api/v1/docs/ HTTP/1.1\r\nHost: fellow\r\n"


@pytest.fixture
def unread(impatient):
    """Makes connections of clients that ask for a page and read nothing of it."""
    host, port = impatient.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:

        def ask(count, request=DOCS + b"\r\n"):
            made = []
            for _ in range(count):
                connection = stack.enter_context(socket.socket())
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect((host, int(port)))
                connection.sendall(request)
                made.append(connection)
            return made

        yield ask


def gone(connections):
    """Those that the server has dropped; nothing is read to see that."""
    poll = select.poll()
    for connection in connections:
        poll.register(connection, 0)
    return poll.poll(0)


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_who_reads_no_answer_is_dropped(impatient, unread, ending):
    # The kernel alone takes three megabytes for a client on the same machine.
    asked = unread(10, (DOCS + b"\r\n") * 15 + DOCS + ending + b"\r\n")
    until(lambda: len(gone(asked)) == len(asked), "they are gone")


def test_who_reads_slowly_gets_all_of_it(impatient, unread):
    (asked,) = unread(1, (DOCS + b"\r\n") * 15 + DOCS + b"Connection: close\r\n\r\n")
    received = b""
    while chunk := asked.recv(65_536):
        received += chunk
        time.sleep(0.002)
    assert received.count(b"</html>") == 16


@pytest.mark.parametrize(
    ("length", "sent"),
    [(2_000, b"{"), (None, b"1\r\n{\r\n")],
    ids=["a part", "a chunk"],
)
def test_a_body_that_is_cut_is_no_wrong_signature(api, length, sent):
    sender = approved(api)
    connection, _ = begin(api, sender, length)
    with connection:
        connection.sendall(sent)
    until(lambda: codes(api, sender), "it is in the log")
    assert codes(api, sender) == ["incomplete_body"]


def test_nor_is_one_that_is_too_slow(impatient):
    sender = approved(impatient)
    connection, raw = begin(impatient, sender, None)
    with connection:
        connection.sendall(b"%x\r\n%b\r\n" % (len(raw), raw))
        assert answer(connection)[0] == 408
    until(lambda: codes(impatient, sender), "it is in the log")
    assert codes(impatient, sender) == ["incomplete_body"]


def test_chunks_that_end_are_taken(api):
    sender = approved(api)
    connection, raw = begin(api, sender, None, lines=("Connection: close",))
    with connection:
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(raw), raw))
        assert answer(connection)[0] == 201


def codes(api, sender):
    page = api.http.get("/webhooks/log/", headers=sender.bearer).json()
    return [one["code"] for one in page["results"]]


def test_what_may_have_no_body_is_not_done_where_one_was_cut(api):
    """Who says what is to be revoked, and is cut off, has not said that nothing is."""
    sender = approved(api)

    def secrets():
        with api.session() as session:
            counted = sqlalchemy.select(sqlalchemy.func.count()).select_from(WebhookSecret)
            theirs = WebhookSecret.account_id == sender.account_id
            return session.scalar(counted.where(theirs))

    before = secrets()
    host, port = api.url.removeprefix("http://").split(":")
    head = (
        "POST /api/v1/webhook/secret/ HTTP/1.1\r\nHost: fellow\r\nContent-Length: 24\r\n"
        f"Expect: 100-continue\r\nAuthorization: {sender.bearer['Authorization']}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(head.encode())
        connection.recv(1_000)
    assert api.http.post("/webhook/secret/", headers=sender.bearer).is_success
    assert secrets() == before + 1
