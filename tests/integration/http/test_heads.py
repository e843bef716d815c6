"""What httptools does not see to, by raw sockets at both apps' protocol.

Heads without bound, trailers, offered upgrades, bodies that wait to be asked for.
"""

import json
import queue
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

from services.ingress.server.worker import Worker as IngressWorker
from shared.http.protocol.heads import MOST_WAITING, BoundedProtocol
from shared.web.worker import Worker as ConsoleWorker
from tests.integration.arrange import PATIENCE

BODY = b"GET /stolen HTTP/1.1\r\nHost: fellow\r\n\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
    "websocket": b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\n",
}
FRAMES = {
    "length": b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED + b"\r\n",
}


async def tell(scope, receive, send):
    """Answer with what arrived; below `/refused` without having read it."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/refused":
        await asked_and_refused(receive, send)
        return
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    names = sorted([name.decode(), value.decode()] for name, value in scope["headers"])
    found = json.dumps({"path": scope["path"], "body": body.decode(), "headers": names}).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(found)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": found})


async def asked_and_refused(receive, send):
    """Wait for a first piece, as Falcon does before anything else, and refuse."""
    await receive()
    start = {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]}
    await send(start)
    await send({"type": "http.response.body", "body": b"{}"})


class Noting(BoundedProtocol):
    """As it is; a test sees how much of what it sent has been read, and so ends a piece there."""

    pieces: queue.SimpleQueue[int] = queue.SimpleQueue()

    def data_received(self, data):
        super().data_received(data)
        self.pieces.put(len(data))


@pytest.fixture(scope="module")
def address():
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(tell, http=Noting, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()
    server.should_exit = True
    thread.join()


def exchange(address, *parts):
    """Send what the server takes and give all that it answers until it closes."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = b""
        try:
            while chunk := connection.recv(65_536):
                received += chunk
        except ConnectionResetError:
            pass
    return received


def answers(received):
    """Give the body of each answer."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(json.loads(rest[:length]))
        received = rest[length:]
    return found


def head(*lines, target=b"/"):
    return b"\r\n".join((b"GET %s HTTP/1.1" % target, b"Host: fellow", *lines, b"", b""))


def last(target=b"/last"):
    return head(b"Connection: close", target=target)


def status_of(address, *parts):
    """Give the status of the first answer."""
    return int(exchange(address, *parts).split()[1])


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head(*[b"A: b"] * 98, b"Connection: close"), 200),
        (head(*[b"A: b"] * 100), 431),
        (head(*[b"N%d: v" % n for n in range(101)]), 431),
        (head(b"A: " + b"b" * 8_190), 431),
        (head(*[b"A: " + b"b" * 8_000] * 5), 431),
        (head(target=b"/" + b"p" * 8_190), 414),
        (head(target=b"/?" + b"q" * 100_000), 414),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (head(b"Host: other"), 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
        (b"GET /\r\n\r\n", 400),
        (b"CONNECT fellow:443 HTTP/1.1\r\nHost: fellow:443\r\n\r\n", 400),
    ],
    ids=[
        "fields at the bound", "equal fields", "different fields", "one field", "bytes in all",
        "path", "query", "no Host", "two Hosts", "two Hosts, 1.0", "no Host, 1.0", "0.9", "CONNECT",
    ],
)  # fmt: skip
def test_a_head_is_bounded(address, sent, status):
    assert status_of(address, sent) == status


CHUNKED_HEAD = head(b"Transfer-Encoding: chunked")
ENDLESS = {
    "one field": (head()[:-2] + b"A: ", b"a" * 1_000_000, 431),
    "equal fields": (head()[:-2], b"A: b\r\n" * 200_000, 431),
    "different fields": (head()[:-2], b"".join(b"N%d: v\r\n" % n for n in range(400_000)), 431),
    "path": (b"GET /", b"p" * 1_000_000, 414),
    "blank lines": (b"\r\n", b"\r\n" * 500_000, 431),
    "trailers": (CHUNKED_HEAD + b"0\r\n", b"A: b\r\n" * 200_000, 431),
    "one trailer": (CHUNKED_HEAD + b"0\r\nA: ", b"a" * 1_000_000, 431),
    "chunk extension": (CHUNKED_HEAD + b"1;", b"a" * 1_000_000, 431),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_refused_and_not_kept(address, kind):
    begun, more, status = ENDLESS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # A client that never looks at the answer sends for as long as it is let; one that does has it.
    exchange(address, begun, *[more] * 50)
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kept < 20_000, "kB"
    assert status_of(address, begun, more) == status


@pytest.mark.parametrize(
    ("refused", "status"),
    [(head(*[b"A: b"] * 101), 431), (b"nonsense\r\n\r\n", 400), (head(b"Host: other"), 400)],
    ids=["too many fields", "no HTTP", "two Hosts"],
)
def test_a_refused_head_is_answered_behind_the_whole_requests_before_it(address, refused, status):
    received = exchange(address, head() + head(target=b"/second") + refused)
    bodies, _, rest = received.rpartition(b"HTTP/1.1 %d " % status)
    assert [found["path"] for found in answers(bodies)] == ["/", "/second"]
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["code"]


def test_a_body_that_breaks_off_is_refused_behind_the_request_before_it(address):
    broken = CHUNKED_HEAD + b"1\r\na\r\nno size\r\n"
    bodies, _, rest = exchange(address, head() + broken).rpartition(b"HTTP/1.1 400 ")
    assert [found["path"] for found in answers(bodies)] == ["/"]
    assert b"bad_request" in rest


def test_a_large_head_behind_another_in_one_piece_is_counted_too(address):
    sent = head(target=b"/first") + head(b"A: " + b"b" * 8_190, target=b"/second")
    assert b" 431 " in exchange(address, sent)
    assert b" 431 " in exchange(address, sent[:100], sent[100:])


@pytest.mark.parametrize("cut", [100, 4_000, 8_000])
def test_a_large_head_in_pieces_behind_another_is_counted_too(address, cut):
    sent = head(target=b"/first") + head(b"A: " + b"b" * 8_190, target=b"/second")
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(sent[:cut])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(sent[cut:])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 431 ")


def test_who_keeps_as_many_requests_on_the_way_as_may_wait_has_all_answers(address):
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(head() * MOST_WAITING)
        for _ in range(20 * MOST_WAITING):
            assert read_answer(connection) == "/"
            connection.sendall(head())
        connection.sendall(last())
        for _ in range(MOST_WAITING):
            assert read_answer(connection) == "/"
        assert read_answer(connection) == "/last"


def read_answer(connection):
    """Give the path of one answer, and take nothing of the next."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += connection.recv(1)
    length = int(received.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return json.loads(connection.recv(length, socket.MSG_WAITALL))["path"]


def test_requests_without_end_on_one_connection_are_not_kept(address):
    """Each would wait whole for those before it: eighty times what it was on the wire."""
    many = head() * 20_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        socket.create_connection(address, timeout=PATIENCE) as connection,
        ThreadPoolExecutor(1) as sender,
    ):
        sending = sender.submit(send_for_as_long_as_it_is_let, connection, [many] * 50)
        received = connection.recv(65_536)
        assert answers(exchange(address, last()))[0]["path"] == "/last"
        tail = received
        while chunk := connection.recv(65_536):
            tail = (tail + chunk)[-65_536:]
        sending.result()
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kept < 20_000, "kB"
    assert received.startswith(b"HTTP/1.1 200 ")
    assert tail.endswith(b"}"), "the last answer is whole"


def send_for_as_long_as_it_is_let(connection, parts):
    try:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass


FIRST = {
    "GET": head(target=b"/first"),
    "length": b"POST /first HTTP/1.1\r\nHost: fellow\r\n" + FRAMES["length"],
    "chunked": b"POST /first HTTP/1.1\r\nHost: fellow\r\n" + FRAMES["chunked"],
    "offer": head(*OFFERS["h2c"].split(b"\r\n")[:-1], target=b"/first"),
}
LARGE = {
    "fields": (head(*[b"A: b"] * 300, target=b"/second"), 431),
    "one field": (head(b"A: " + b"b" * 60_000, target=b"/second"), 431),
    "target": (head(target=b"/" + b"p" * 60_000), 414),
}


@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize("first", FIRST)
def test_a_large_head_is_counted_wherever_the_request_before_it_was_cut(address, first, large):
    before, (refused, status) = FIRST[first], LARGE[large]
    taken = [cut for cut in range(1, len(before)) if not is_refused(address, before, cut, refused)]
    assert not taken, f"no {status} where the first piece ends at these bytes"


def is_refused(address, before, cut, large):
    """Whether the second request is refused, of which nothing is in the first piece."""
    while not Noting.pieces.empty():
        Noting.pieces.get()
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(before[:cut])
        arrived = 0
        while arrived < cut:
            arrived += Noting.pieces.get(timeout=PATIENCE)
        connection.sendall(before[cut:] + large + last())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return b"HTTP/1.1 4" in received and b"/second" not in received


@pytest.mark.parametrize("step", [1, 7, 100_000], ids=lambda step: f"by {step}")
@pytest.mark.parametrize("method", [b"POST", b"GET"], ids=["POST", "GET"])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offered_upgrade_loses_no_body_and_makes_no_request(address, offer, frame, method, step):
    begun = method + b" /first HTTP/1.1\r\nHost: fellow\r\n" + OFFERS[offer]
    sent = begun + FRAMES[frame] + last()
    found = answers(exchange(address, *(sent[at : at + step] for at in range(0, len(sent), step))))
    assert [(each["path"], each["body"]) for each in found] == [
        ("/first", BODY.decode()),
        ("/last", ""),
    ]


def test_an_offered_upgrade_without_a_body_is_a_request(address):
    offered = head(*OFFERS["h2c"].split(b"\r\n")[:-1], target=b"/first")
    found = answers(exchange(address, offered * 2 + last()))
    assert [each["path"] for each in found] == ["/first", "/first", "/last"]


def test_a_trailer_is_never_a_header(address):
    begun = b"POST /first HTTP/1.1\r\nHost: fellow\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    trailers = b"0\r\nX-Forwarded-For: 203.0.113.9\r\nHost: other\r\n\r\n"
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        # The app reads its headers after the trailers have come, when all is in one piece.
        connection.sendall(begun + trailers + last())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    found = answers(received)
    assert found[0]["headers"] == [["host", "fellow"], ["transfer-encoding", "chunked"]]
    assert [each["body"] for each in found] == ["a", ""]


def test_white_space_around_a_value_is_none_of_it(address):
    found = answers(exchange(address, head(b"A: \t b c \t ", b"Connection: close")))
    assert ["a", "b c"] in found[0]["headers"]


EXPECT = b"Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def expecting(target, version=b"1.1", more=b""):
    return b"POST %s HTTP/%s\r\nHost: fellow\r\n%s\r\n%sContent-Length: %d\r\n\r\n" % (
        target,
        version,
        EXPECT,
        more,
        len(BODY),
    )


def test_a_body_that_somebody_wants_is_asked_for(address):
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(expecting(b"/first"))
        assert connection.recv(65_536) == CONTINUE
        connection.sendall(BODY + last())
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    first, second = answers(received)
    assert (first["path"], first["body"], second["path"]) == ("/first", BODY.decode(), "/last")


def test_a_refusal_of_the_head_alone_asks_for_no_body_and_closes(address):
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        connection.sendall(expecting(b"/refused"))
        received = connection.recv(65_536)
        # A client that has not waited; none of it may be answered.
        connection.sendall(BODY + last())
        while chunk := connection.recv(65_536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in received.lower()
    assert received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("sent", "paths"),
    [
        (expecting(b"/first") + BODY + last(), ["/first", "/last"]),
        (head(EXPECT, target=b"/first") + last(), ["/first", "/last"]),
        (expecting(b"/first", version=b"1.0") + BODY, ["/first"]),
    ],
    ids=["the body is there", "there is no body", "HTTP/1.0"],
)
def test_nothing_is_asked_for_that_is_there_or_could_not_be_waited_for(address, sent, paths):
    assert [found["path"] for found in answers(exchange(address, sent))] == paths


@pytest.mark.parametrize("worker", [IngressWorker, ConsoleWorker], ids=["ingress", "console"])
def test_both_programs_speak_it(worker):
    assert issubclass(worker.CONFIG_KWARGS["http"], BoundedProtocol)
