"""Extends uvicorn's HTTP/1.1 protocol: limits for heads and pipelining, and ignored upgrades.

httptools buffers incomplete fields without a limit, reports trailers as headers, and treats an
offered upgrade as a change of protocol, after which it parses the request's body as the next
request. uvicorn keeps any number of pipelined requests.
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
"""Most complete pipelined requests of a connection that wait for earlier responses."""
_VERSIONS = ("1.1", "1.0")
_MOST_UNPRODUCTIVE = HEAD_BYTES + TARGET_BYTES


def answer(status: bytes, body: bytes) -> bytes:
    """Return a complete response with `Connection: close`."""
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
_CHECKED = frozenset({b"host", b"expect", b"transfer-encoding"})


class HeadError(ValueError):
    """A refused head; raised in a callback of httptools, it ends the parsing."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection that checks the size of heads before the app sees them."""

    _refusal = _NO_HTTP
    _final_response: bytes | None = None
    headers: Any
    url = b""
    _unproductive = 0  # bytes received since the last complete head or piece of a body
    _begun = -1  # size of the data with which the current request began; -1 in later data
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
        # Counts incomplete fields of heads and trailers, which are buffered inside httptools.
        if self._unproductive > _MOST_UNPRODUCTIVE and self._final_response is None:
            is_target = not self.headers and len(self.url) > TARGET_BYTES
            self.end_with(_URL_TOO_LONG if is_target else _HEAD_TOO_LARGE)

    def _go_on(self, offer: httptools.HttpParserUpgrade, data: memoryview) -> None:
        """Parse a request that offers an upgrade again without the offer, and the data after it.

        httptools always skips the body of such a request.
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
        """Return the head without the upgrade, which may be ignored (RFC 9110, 7.8)."""
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
        if name in _CHECKED:
            self._check(name, value.strip().lower())
        self.headers.append((name, value.strip()))
        # One piece of data may have 40,000 fields, whose memory the process would keep.
        if len(self.headers) > FIELDS:
            self._refusal = _HEAD_TOO_LARGE
            raise HeadError

    def _check(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self.expect_100_continue = self.expect_100_continue or value == b"100-continue"
        elif value != b"chunked":
            # No other coding is decoded here (RFC 9112, 6.1).
            self._refusal = _UNKNOWN_CODING
            raise HeadError
        else:
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        """Called by httptools; an exception ends the parsing.

        httptools parses a request line without a version as HTTP/0.9, for which Falcon returns 500.
        Host is required exactly once (RFC 9112, 3.2); in HTTP/1.0 it is optional.
        """
        # A head that arrived in one piece, no larger than a field, needs no counting.
        is_small = self._unproductive == self._begun <= FIELD_BYTES
        if not is_small:
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
            # The client must retry unanswered requests (RFC 9112, 9.3.2).
            self._refusal = b""
            raise HeadError
        self._unproductive = 0
        if self.expect_100_continue:
            self._begin_deferred(version)
        else:
            super().on_headers_complete()
        if self._is_chunked:
            # Only uvicorn knows whether a chunked body is complete. A weak reference, because the
            # cycle refers to the scope, and both would wait for the garbage collector.
            self.scope["state"][CYCLE] = ref(self.cycle)
            self._is_chunked = False
        # Receives the trailers, which must not be merged into the headers (RFC 9110, 6.5.1).
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
        if max(sizes, default=0) > FIELD_BYTES or sum(sizes) > HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            raise HeadError

    def on_body(self, body: bytes) -> None:
        """Called by httptools. As in uvicorn, without its check for an upgrade at each piece."""
        self._unproductive = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Called by httptools, also when it stops at an offered upgrade."""
        if not self._is_offered:
            self._unproductive = self._hosts = 0
            self.headers = None  # the state before the first request
            cycle = self.cycle
            if not cycle.response_complete:
                cycle.more_body = False
                cycle.message_event.set()

    def end_with(self, response: bytes) -> None:
        """Close the connection with a response, after those to all complete requests before.

        Further data is discarded.

        Args:
            response: complete; empty if it was already sent.
        """
        if self._final_response is not None or self.transport.is_closing():
            return
        self._final_response = response
        self.transport.set_protocol(_Lingering(self))
        # Lingering connections are many and need nothing of what was read.
        self.url, self.headers = b"", None
        self.parser = None  # type: ignore[assignment]
        cycle = self.cycle
        is_pending = cycle is not None and not cycle.response_complete
        if is_pending and cycle.more_body:  # the response is for this incomplete request
            cycle.disconnected = True
            cycle.message_event.set()
            is_pending = bool(self.pipeline)
            if is_pending:
                self.pipeline.popleft()
            elif cycle.response_started:
                self._final_response = b""
        if is_pending:
            waiting: deque[Any] = self.pipeline
            waiting.appendleft((_FinalResponse(self._send_final_response), None))
        else:
            self._send_final_response()

    def _send_final_response(self) -> None:
        """Respond, and close in stages (RFC 9112, 9.6): after a reset the response may be lost."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._final_response:
            self.transport.write(self._final_response)
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - our errors have one shape
        """Called by uvicorn for requests that cannot be parsed."""
        self.end_with(_NO_HTTP)


class _Flow(FlowControl):
    """Pauses reading while pipelined requests wait."""

    def __init__(self, transport: asyncio.Transport, waiting: deque[Any]) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Called by uvicorn after each response, and when an app receives."""
        if self.read_paused and not self._waiting:
            super().resume_reading()


class _FinalResponse:
    """An entry of uvicorn's pipeline that sends the final response of a connection."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send

    async def run_asgi(self, _: Any) -> None:
        """Called by uvicorn after all earlier responses."""
        self._send()


class _Lingering(asyncio.Protocol):
    """Discards data after the final response, until the client closes."""

    def __init__(self, ended: BoundedProtocol) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.connection_lost(exc)

    def pause_writing(self) -> None:
        self._ended.pause_writing()

    def resume_writing(self) -> None:
        self._ended.resume_writing()
