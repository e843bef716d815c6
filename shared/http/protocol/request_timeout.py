"""A bound on how long a request may take to arrive, and an answer to be read, at every app.

uvicorn waits for ever for the rest of a head or of a body, and for a client to take its answer. A
sweep over all connections ends those that keep it waiting; a request pays nothing for it (a timer
for each cost 4% of the hot path).
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from typing import Any
from weakref import WeakSet

from shared.config.loading import settings
from shared.http.protocol.heads import BoundedProtocol, answer

_RESET = struct.pack("ii", 1, 0)
SWEEPS = 10  # in the time that a request has
_TOO_SLOW = answer(
    b"408 Request Timeout",
    b'{"error":"The request took too long to arrive.","code":"request_timeout"}',
)
_swept: WeakSet[Any] = WeakSet()  # states of uvicorn's servers


class ImpatientProtocol(BoundedProtocol):
    """One connection; the first of a server starts the sweep."""

    _awaited: tuple[object, float] = (None, 0.0)
    _unread, _unread_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        if self.server_state not in _swept:
            _swept.add(self.server_state)
            _sweep(self.connections, self.loop, settings().request_seconds)

    def end_if_late(self, now: float, seconds: float) -> None:
        """Answer 408 (RFC 9110, 15.5.9) and close, if the same request is awaited for too long.

        Or drop the client, if it has taken nothing of what waits for it for as long: also when
        the connection is closed already, which does not happen before all is taken.

        Args:
            now: by the loop's clock.
            seconds: how long a request may take.
        """
        before, self._unread = self._unread, self._what_is_unread()
        if not before or self._unread < before:
            self._unread_since = now
        elif now - self._unread_since > seconds:
            # With a reset (socket(7)): else the kernel goes on with what it has, for minutes.
            its_socket = self.transport.get_extra_info("socket")
            its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        awaited = self._what_is_awaited()
        if awaited is None:
            self._awaited = (None, 0.0)
        elif self._awaited[0] is not awaited:
            self._awaited = (awaited, now)
        elif now - self._awaited[1] > seconds:
            self.end_with(_TOO_SLOW)

    def _what_is_unread(self) -> int:
        """How many bytes the client has not taken yet; 0 while the kernel has them all.

        With those that the kernel has, which lets us write again only when much of it is taken.
        """
        waiting: int = self.transport.get_write_buffer_size()
        if waiting:
            file = self.transport.get_extra_info("socket").fileno()
            in_kernel = fcntl.ioctl(file, termios.TIOCOUTQ, bytes(4))  # tcp(7), SIOCOUTQ
            waiting += int.from_bytes(in_kernel, sys.byteorder)
        return waiting

    def _what_is_awaited(self) -> object:
        """What stands for the request that has not arrived whole; None when none is under way."""
        cycle = self.cycle
        if cycle is None:
            return self
        if cycle.response_complete:
            # Between two requests uvicorn's own timer runs, until the next one begins.
            return cycle if self.timeout_keep_alive_task is None else None
        return cycle if cycle.more_body and not cycle.response_started else None


def _sweep(connections: Any, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    now = loop.time()
    for connection in list(connections):
        connection.end_if_late(now, seconds)
    loop.call_later(seconds / SWEEPS, _sweep, connections, loop, seconds)
