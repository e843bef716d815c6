"""uvicorn's HTTP/1.1 protocol with what httptools leaves out: bounds, and no upgrade.

httptools keeps a field until it is whole, gives trailers as headers, and takes an offered upgrade
for a change of protocol, after which it reads the request's body as the next request.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 32_768  # of names and values
FIELDS = 100
FIELD_BYTES = 8_190
TARGET_BYTES = 8_190
VERSIONS = ("1.1", "1.0")


def answer(status: bytes, body: bytes) -> bytes:
    """Give a whole answer, after which the connection is closed."""
    head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/json\r\n" % status
    return head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


_NO_HTTP = answer(b"400 Bad Request", b'{"error":"This is no HTTP request.","code":"bad_request"}')
_HEAD_TOO_LARGE = answer(
    b"431 Request Header Fields Too Large",
    b'{"error":"The request has too many or too large header fields.","code":"head_too_large"}',
)
_TARGET_TOO_LONG = answer(
    b"414 URI Too Long", b'{"error":"The request\'s URL is too long.","code":"url_too_long"}'
)


class HeadError(ValueError):
    """A head that is refused; what is raised in httptools' callbacks ends the parsing."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection whose heads are bounded before they are kept."""

    _refusal = _NO_HTTP
    _unproductive = 0  # bytes since the last that ended a head or were of a body
    _fields = 0
    _field_bytes = 0
    _hosts = 0
    _in_head = True
    _offered = False

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: refuse what is still no head, body or end after `HEAD_BYTES`."""
        self._unproductive += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        # A field that is not whole, of a head or a trailer, lies in httptools and was not counted.
        if self._unproductive > HEAD_BYTES + TARGET_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            self.send_400_response("")

    def _feed(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                rest = memoryview(data)[offer.args[0] :]
                head = self._head_without_upgrade()
                # It skips the body of a request that offers an upgrade, and cannot be told not to.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
                data = rest
            else:
                return

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

    def on_message_begin(self) -> None:
        """Called by httptools."""
        self._fields = self._field_bytes = self._hosts = 0
        self._in_head, self._offered = True, False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Called by httptools, for each part of the target that arrives."""
        if len(self.url) + len(url) > TARGET_BYTES:
            self._refuse(_TARGET_TOO_LONG)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by httptools, for trailers too: counted and dropped (RFC 9110, 6.5.1)."""
        size = len(name) + len(value)
        self._fields += 1
        self._field_bytes += size
        if self._fields > FIELDS or size > FIELD_BYTES or self._field_bytes > HEAD_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
        if self._in_head:
            name = name.lower()
            if name == b"host":
                self._hosts += 1
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Called by httptools; what is raised here becomes a 400.

        A request line without a version counts as HTTP/0.9 there, which Falcon answers with a 500.
        Host is there exactly once (RFC 9112, 3.2); HTTP/1.0 may leave it out.
        """
        version = self.parser.get_http_version()
        self._in_head = False
        if version not in VERSIONS:
            self._refuse(_NO_HTTP)
        if self._hosts != 1 and (self._hosts or version != "1.0"):
            self._refuse(_NO_HTTP)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refuse(_NO_HTTP)
            self._offered = True
            return
        self._unproductive = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Called by httptools."""
        self._unproductive = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by httptools, also where it gives up at an offered upgrade."""
        if not self._offered:
            self._unproductive = 0
            super().on_message_complete()

    def _refuse(self, refusal: bytes) -> None:
        self._refusal = refusal
        raise HeadError("this head is refused")

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - in the shape of all our errors
        """Answer what is refused or cannot be parsed, and close."""
        self.transport.write(self._refusal)
        self.transport.close()
