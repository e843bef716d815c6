"""uvicorn's HTTP/1.1 protocol with what httptools leaves out: bounds, order, and no upgrade.

httptools keeps a field until it is whole, gives trailers as headers, and takes an offered upgrade
for a change of protocol, after which it reads the request's body as the next request. uvicorn keeps
whatever is pipelined, and reads on after each answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import ref

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.http.bodies import CYCLE
from shared.http.protocol.expecting import Deferred

FIELDS = 100
FIELD_BYTES = 8_190
TARGET_BYTES = 8_190
HEAD_BYTES = 32_768  # of names and values
LINGER_SECONDS = 2.0
MOST_WAITING = 64
"""Requests of one connection that wait, whole, for the answers before theirs."""
_VERSIONS = ("1.1", "1.0")
_MOST_UNPRODUCTIVE = HEAD_BYTES + TARGET_BYTES


def answer(status: bytes, body: bytes) -> bytes:
    """Give a whole answer, after which the connection is closed."""
    head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/json\r\n" % status
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


_NO_HTTP = answer(b"400 Bad Request", b'{"error":"This is no HTTP request.","code":"bad_request"}')
_HEAD_TOO_LARGE = answer(
    b"431 Request Header Fields Too Large",
    b'{"error":"The request has too many or too large header fields.","code":"head_too_large"}',
)
_URL_TOO_LONG = answer(
    b"414 URI Too Long", b'{"error":"The request\'s URL is too long.","code":"url_too_long"}'
)
_UNKNOWN_CODING = answer(
    b"501 Not Implemented",
    b'{"error":"The only Transfer-Encoding is chunked.","code":"unknown_transfer_coding"}',
)
_MEANT_FOR_US = frozenset({b"host", b"expect", b"transfer-encoding"})


class HeadError(ValueError):
    """A head that is refused; what is raised in httptools' callbacks ends the parsing."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection whose heads are bounded before anybody is given them."""

    _refusal = _NO_HTTP
    _last_words: bytes | None = None
    headers: Any
    url = b""
    _unproductive = 0  # bytes since the last that ended a head or were of a body; 0 in mid-data
    _begun = -1  # bytes that came in one piece with which a request began; -1 in the next pieces
    _hosts = 0
    _is_offered = False
    _is_chunked = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        size = len(data)
        self._unproductive += size
        self._begun = size if self.headers is None else -1
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._go_on(offer, memoryview(data))
        except httptools.HttpParserError:
            self.end_with(self._refusal)
        # A field that is not whole, of a head or a trailer, lies in httptools: nobody has seen it.
        if self._unproductive > _MOST_UNPRODUCTIVE and self._last_words is None:
            is_target = not self.headers and len(self.url) > TARGET_BYTES
            self.end_with(_URL_TOO_LONG if is_target else _HEAD_TOO_LARGE)

    def _go_on(self, offer: httptools.HttpParserUpgrade, data: memoryview) -> None:
        """Parse what an upgrade was offered in again, without the offer, and what is behind it.

        httptools skips the body of such a request, and cannot be told not to.
        """
        try:
            while True:
                data = data[offer.args[0] :]
                head = self._head_without_upgrade()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self._hosts, self._is_offered = 0, False
                self.parser.feed_data(head)
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as another:
                    offer = another
                else:
                    return
        except httptools.HttpParserError:
            self.end_with(self._refusal)

    def _head_without_upgrade(self) -> bytes:
        """The head again, as of a sender that offers none (RFC 9110, 7.8: it may be ignored)."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s\r\n" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                kept = b", ".join(option for option in options if option.lower() != b"upgrade")
                lines.append(b"connection: %s\r\n" % kept)
            elif name != b"upgrade":
                lines.append(b"%s: %s\r\n" % (name, value))
        return b"".join((*lines, b"\r\n"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools, for trailers too."""
        name = name.lower()
        if name in _MEANT_FOR_US:
            self._take(name, value.strip().lower())
        self.headers.append((name, value.strip()))

    def _take(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self.expect_100_continue = self.expect_100_continue or value == b"100-continue"
        elif value != b"chunked":
            # Another coding is not undone by anybody here (RFC 9112, 6.1).
            self._refusal = _UNKNOWN_CODING
            raise HeadError
        else:
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        """Called by httptools; what is raised here ends the parsing.

        A request line without a version counts as HTTP/0.9 there, which Falcon answers with a 500.
        Host is there exactly once (RFC 9112, 3.2); HTTP/1.0 may leave it out.
        """
        # A head that came whole and first in a piece no larger than a field needs no counting.
        is_small = self._unproductive == self._begun <= FIELD_BYTES
        if not is_small or len(self.headers) > FIELDS:
            self._require_bounds()
        version = self.parser.get_http_version()
        if version not in _VERSIONS or (self._hosts != 1 and (self._hosts or version == "1.1")):
            raise HeadError
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise HeadError
            self._is_offered = True
            return
        if self.pipeline and len(self.pipeline) >= MOST_WAITING:
            # Who pipelines has to send again what is not answered (RFC 9112, 9.3.2).
            self._refusal = b""
            raise HeadError
        self._unproductive = 0
        if self.expect_100_continue:
            self._begin_deferred(version)
        else:
            super().on_headers_complete()
        if self._is_chunked:
            # Of what says no length only uvicorn knows whether it ended. Not the cycle itself: it
            # has the scope, and both would wait for the garbage collector.
            self.scope["state"][CYCLE] = ref(self.cycle)
            self._is_chunked = False
        # Trailers go here, and nowhere else (RFC 9110, 6.5.1).
        self.headers = []

    def _begin_deferred(self, version: str) -> None:
        self.expect_100_continue = version == "1.1"  # RFC 9110, 10.1.1
        app, self.app = self.app, Deferred(self.app, self)
        super().on_headers_complete()
        self.app.cycle, self.app = self.cycle, app

    def _require_bounds(self) -> None:
        if len(self.url) > TARGET_BYTES:
            self._refusal = _URL_TOO_LONG
            raise HeadError
        sizes = [len(name) + len(value) for name, value in self.headers]
        if len(sizes) > FIELDS or max(sizes, default=0) > FIELD_BYTES or sum(sizes) > HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            raise HeadError

    def on_body(self, body: bytes) -> None:
        """Called by httptools. As uvicorn's, which asks at each piece whether to upgrade."""
        self._unproductive = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Called by httptools, also where it gives up at an offered upgrade."""
        if not self._is_offered:
            self._unproductive = self._hosts = 0
            self.headers = None  # as before the first request
            cycle = self.cycle
            if not cycle.response_complete:
                cycle.more_body = False
                cycle.message_event.set()

    def end_with(self, words: bytes) -> None:
        """End the connection with an answer, when all whole requests before have theirs.

        Nothing that comes is read any more.

        Args:
            words: a whole answer; empty where there is one already.
        """
        if self._last_words is not None or self.transport.is_closing():
            return
        self._last_words = words
        self.transport.set_protocol(_Lingering(self))
        cycle = self.cycle
        owed = cycle is not None and not cycle.response_complete
        if owed and cycle.more_body:  # it is this request that is answered here
            cycle.disconnected = True
            cycle.message_event.set()
            owed = bool(self.pipeline)
            if owed:
                self.pipeline.popleft()
            elif cycle.response_started:
                self._last_words = b""
        if owed:
            waiting: deque[Any] = self.pipeline
            waiting.appendleft((_LastWords(self._say_last_words), None))
        else:
            self._say_last_words()

    def _say_last_words(self) -> None:
        """Answer, and close in stages (RFC 9112, 9.6): a reset would take the answer back."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._last_words:
            self.transport.write(self._last_words)
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - in the shape of all our errors
        """Called by uvicorn for what cannot be parsed."""
        self.end_with(_NO_HTTP)


class _Flow(FlowControl):
    """Reads nothing more while requests wait that have been read."""

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Called by uvicorn at each answer, and where an app asks for its request."""
        if self.read_paused and not self._waiting:
            super().resume_reading()


class _LastWords:
    """Stands in uvicorn's pipeline for the last answer of a connection, where a request would."""

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say

    async def run_asgi(self, _: Any) -> None:
        """Called by uvicorn when all before it are answered."""
        self._say()


class _Lingering(asyncio.Protocol):
    """Reads past what comes after the last answer, until the other side closes."""

    def __init__(self, ended: BoundedProtocol) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.connection_lost(exc)

    def pause_writing(self) -> None:
        self._ended.pause_writing()

    def resume_writing(self) -> None:
        self._ended.resume_writing()
