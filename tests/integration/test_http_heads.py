"""Heads without bound, trailers and offered upgrades, by raw sockets at both apps' protocol."""

import json
import resource
import socket
import threading
import time

import pytest
import uvicorn

from services.ingress.worker import Worker as IngressWorker
from services.ops.console.worker import Worker as ConsoleWorker
from shared.http.heads import BoundedProtocol

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
    """Answer with what arrived."""
    if scope["type"] != "http":
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


@pytest.fixture(scope="module")
def address():
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(tell, http=BoundedProtocol, lifespan="off", log_level="error")
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
    with socket.create_connection(address, timeout=30) as connection:
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
    """Give the status of the only answer: a reset may take it, so heads come in one piece."""
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


ENDLESS = {
    "one field": (head()[:-2] + b"A: ", b"a" * 1_000_000),
    "equal fields": (head()[:-2], b"A: b\r\n" * 200_000),
    "different fields": (head()[:-2], b"".join(b"N%d: v\r\n" % n for n in range(400_000))),
    "path": (b"GET /", b"p" * 1_000_000),
    "trailers": (head(b"Transfer-Encoding: chunked") + b"0\r\n", b"A: b\r\n" * 200_000),
    "one trailer": (head(b"Transfer-Encoding: chunked") + b"0\r\nA: ", b"a" * 1_000_000),
    "chunk extension": (head(b"Transfer-Encoding: chunked") + b"1;", b"a" * 1_000_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_not_kept_and_costs_no_neighbour(address, kind):
    begun, more = ENDLESS[kind]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    exchange(address, begun, *[more] * 50)
    kept = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kept < 20_000, "kB"
    assert answers(exchange(address, last()))[0]["path"] == "/last"


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
    with socket.create_connection(address, timeout=30) as connection:
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


@pytest.mark.parametrize("worker", [IngressWorker, ConsoleWorker], ids=["ingress", "console"])
def test_both_programs_speak_it(worker):
    assert issubclass(worker.CONFIG_KWARGS["http"], BoundedProtocol)
