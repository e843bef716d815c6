"""Timeouts for receiving a request and for a client to read the response.

uvicorn waits for both without a timeout. A periodic sweep over all connections ends the late ones,
at no cost per request (a timer per request cost 4% of the hot path).
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
SWEEPS = 10  # per timeout
_TOO_SLOW = answer(
    b"408 Request Timeout",
    b'{"error":"The request took too long to arrive.","code":"request_timeout"}',
)
_swept: WeakSet[Any] = WeakSet()  # states of uvicorn's servers


class RequestTimeoutProtocol(BoundedProtocol):
    """A connection with timeouts; the first connection of a server starts the sweep."""

    _awaited: tuple[object, float] = (None, 0.0)
    _unread, _unread_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        if self.server_state not in _swept:
            _swept.add(self.server_state)
            _sweep(self.connections, self.loop, settings().request_seconds)

    def end_if_late(self, now: float, seconds: float) -> None:
        """Respond 408 (RFC 9110, 15.5.9) and close if a request is incomplete for too long.

        Or reset the connection if the client has read nothing of a pending response for as long,
        even after close(), which waits until all is read.

        Args:
            now: by the loop's clock.
            seconds: the timeout.
        """
        before, self._unread = self._unread, self._unread_bytes()
        if not before or self._unread < before:
            self._unread_since = now
        elif now - self._unread_since > seconds:
            # With a reset (socket(7)); otherwise the kernel keeps sending for minutes.
            client = self.transport.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        awaited = self._incomplete_request()
        if awaited is None:
            self._awaited = (None, 0.0)
        elif self._awaited[0] is not awaited:
            self._awaited = (awaited, now)
        elif now - self._awaited[1] > seconds:
            self.end_with(_TOO_SLOW)

    def _unread_bytes(self) -> int:
        """Return the response bytes that the client has not read; 0 if the kernel has them all.

        Includes the kernel's send buffer, which becomes writable only after much of it is read.
        """
        waiting: int = self.transport.get_write_buffer_size()
        if waiting:
            file = self.transport.get_extra_info("socket").fileno()
            in_kernel = fcntl.ioctl(file, termios.TIOCOUTQ, bytes(4))  # tcp(7), SIOCOUTQ
            waiting += int.from_bytes(in_kernel, sys.byteorder)
        return waiting

    def _incomplete_request(self) -> object:
        """Return an object that identifies the incomplete request; None if there is none."""
        cycle = self.cycle
        if cycle is None:
            return self
        if cycle.response_complete:
            # Between two requests uvicorn's keep-alive timer applies until the next one begins.
            return cycle if self.timeout_keep_alive_task is None else None
        return cycle if cycle.more_body and not cycle.response_started else None


def _sweep(connections: Any, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    now = loop.time()
    for connection in list(connections):
        connection.end_if_late(now, seconds)
    loop.call_later(seconds / SWEEPS, _sweep, connections, loop, seconds)
