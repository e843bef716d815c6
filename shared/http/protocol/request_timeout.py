"""A bound on how long a request may take to arrive, at every app.

uvicorn waits for ever for the rest of a head or of a body. A sweep over all connections ends those
that keep it waiting; a request pays nothing for it (a timer for each cost 4% of the hot path).
"""

import asyncio
from typing import Any
from weakref import WeakSet

from shared.config.loading import settings
from shared.http.protocol.heads import BoundedProtocol, answer

SWEEPS = 10  # in the time that a request has
_TOO_SLOW = answer(
    b"408 Request Timeout",
    b'{"error":"The request took too long to arrive.","code":"request_timeout"}',
)
_swept: WeakSet[Any] = WeakSet()  # states of uvicorn's servers


class ImpatientProtocol(BoundedProtocol):
    """One connection; the first of a server starts the sweep."""

    _awaited: tuple[object, float] = (None, 0.0)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        if self.server_state not in _swept:
            _swept.add(self.server_state)
            _sweep(self.connections, self.loop, settings().request_seconds)

    def end_if_late(self, now: float, seconds: float) -> None:
        """Answer 408 (RFC 9110, 15.5.9) and close, if the same request is awaited for too long.

        Args:
            now: by the loop's clock.
            seconds: how long a request may take.
        """
        awaited = self._what_is_awaited()
        if awaited is None:
            self._awaited = (None, 0.0)
        elif self._awaited[0] is not awaited:
            self._awaited = (awaited, now)
        elif now - self._awaited[1] > seconds:
            self.end_with(_TOO_SLOW)

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
