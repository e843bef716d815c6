"""What a connection keeps of a head that it refuses."""

import asyncio
from types import SimpleNamespace

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from shared.http.protocol.heads import FIELDS, HEAD_BYTES, BoundedProtocol

BEGUN = b"POST / HTTP/1.1\r\nHost: fellow\r\n"


class Transport(asyncio.Transport):
    """Takes what is written, and is never closed."""

    def __init__(self):
        super().__init__()
        self.written = b""

    def write(self, data):
        self.written += data

    def is_closing(self):
        return False

    def write_eof(self):
        pass

    def set_protocol(self, protocol):
        pass


class Watched(BoundedProtocol):
    """Counts the fields that it kept."""

    most = 0

    def on_header(self, name, value):
        try:
            super().on_header(name, value)
        finally:
            self.most = max(self.most, len(self.headers))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (BEGUN + b"A: b\r\n" * 40_000, b"431"),
        (BEGUN + b"A: " + b"b" * 2 * HEAD_BYTES, b"431"),
        (b"GET /" + b"p" * 100_000 + b" HTTP/1.1\r\nHost: fellow\r\n\r\n", b"414"),
    ],
)
def test_a_refused_head_leaves_nothing_in_memory(data, status):
    """A connection lingers for seconds after its refusal, and one piece may be 256 kB."""

    async def refuse():
        config = Config(app=SimpleNamespace())
        config.load()
        connection = Watched(config, ServerState(), {}, asyncio.get_running_loop())
        transport = Transport()
        connection.connection_made(transport)
        connection.data_received(data)
        return connection, transport.written

    connection, written = asyncio.run(refuse())
    assert written.startswith(b"HTTP/1.1 " + status)
    assert connection.most <= FIELDS + 1
    assert (connection.url, connection.headers, connection.parser) == (b"", None, None)
