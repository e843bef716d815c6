"""One system call an answer: what a turn of the loop writes to a connection leaves in one piece.

uvicorn writes an answer's head and its body apart, and uvloop hands each to the kernel at once. The
second call, and the second packet for the client to read, cost a tenth of the hot path.
"""

import asyncio
from typing import Any

LARGE = 16_384
"""Bytes; what is larger is not copied, so that all who are sent the same page share it."""


class CorkedTransport:
    """A transport that keeps what is written until the loop's next turn.

    Args:
        transport: the loop's own; all but writing and closing is its business.
        loop: the running loop.
    """

    __slots__ = ("_held", "_loop", "_transport")

    _dirty: "list[CorkedTransport]" = []  # noqa: RUF012 - of all connections: one flush a turn

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write in this turn of the loop, together with whatever else is small."""
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
        """Close, after what was written has left."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Close this direction, after what was written has left."""
        self.flush()
        self._transport.write_eof()

    def flush(self) -> None:
        """Hand what is held to the loop's transport."""
        if self._held:
            held, self._held = b"".join(self._held), []
            self._transport.write(held)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._transport.is_closing()


def _flush_all() -> None:
    dirty, CorkedTransport._dirty = CorkedTransport._dirty, []
    for transport in dirty:
        transport.flush()
