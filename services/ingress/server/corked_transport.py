"""A transport that sends all writes of one loop iteration in one system call.

uvicorn writes an answer's head and body separately, and uvloop passes each to the kernel
immediately. The second call, and the second packet for the client to read, cost a tenth of the hot
path.
"""

import asyncio
from typing import Any

LARGE = 16_384
"""Bytes; larger data is not copied, so that clients that get the same page share its buffer."""


class CorkedTransport:
    """Buffers writes until the loop's next iteration.

    Args:
        transport: the loop's transport, which handles all but writing and closing.
        loop: the running loop.
    """

    __slots__ = ("_held", "_loop", "_transport")

    _dirty: "list[CorkedTransport]" = []  # noqa: RUF012 - of all connections: one flush an iteration

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Buffer data until the end of the iteration; flush before large data."""
        if not self._held:
            if not self._dirty:
                self._loop.call_soon(_flush_all)
            self._dirty.append(self)
        elif len(data) > LARGE:
            self.flush()
            self._transport.write(data)
            return
        self._held.append(data)

    def close(self) -> None:
        """Flush, and close."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Flush, and close this direction."""
        self.flush()
        self._transport.write_eof()

    def flush(self) -> None:
        """Pass the buffered data to the loop's transport."""
        if self._held:
            held, self._held = b"".join(self._held), []
            self._transport.write(held)

    def is_closing(self) -> bool:
        """Return whether it is closed or closing."""
        return self._transport.is_closing()


def _flush_all() -> None:
    dirty, CorkedTransport._dirty = CorkedTransport._dirty, []
    for transport in dirty:
        transport.flush()
