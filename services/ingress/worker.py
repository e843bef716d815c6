"""The gunicorn worker: uvicorn's, with a bound on how long a request may take to arrive.

uvicorn waits for ever for the rest of a head or of a body. A sweep over all connections ends those
that keep it waiting; a request pays nothing for it (a timer for each cost 4% of the hot path).
"""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn_worker import UvicornWorker

from services.ingress.cork import CorkedTransport
from shared.config import settings
from shared.http.heads import BoundedProtocol, answer

_TOO_SLOW = answer(
    b"408 Request Timeout",
    b'{"error":"The request took too long to arrive.","code":"request_timeout"}',
)
# A worker that stops still answers what comes on kept connections within this time, and says there
# that it closes them: the sender of a request that is on its way just then would get no answer.
LAST_REQUEST_SECONDS = 1.0
SWEEPS = 10  # in the time that a request has


class ImpatientProtocol(BoundedProtocol):
    """One connection; the first of a worker starts the sweep."""

    _sweeping = False
    _awaited: tuple[object, float] = (None, 0.0)
    _stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        loop = asyncio.get_running_loop()
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, loop)))
        if not ImpatientProtocol._sweeping:
            ImpatientProtocol._sweeping = True
            _sweep(self.connections, loop, settings().request_seconds)

    def on_headers_complete(self) -> None:
        """Called by httptools."""
        super().on_headers_complete()
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Called by uvicorn when the worker stops: who is idle may bring one request more."""
        self._stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self.transport.is_closing():
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_when_idle)

    def _close_when_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def end_if_late(self, now: float, seconds: float) -> None:
        """Answer 408 (RFC 9110, 15.5.9) and close, if the same request is awaited for too long."""
        awaited = self._what_is_awaited()
        if awaited is None:
            self._awaited = (None, 0.0)
        elif self._awaited[0] is not awaited:
            self._awaited = (awaited, now)
        elif now - self._awaited[1] > seconds:
            self.transport.write(_TOO_SLOW)
            self.transport.close()

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


class Worker(UvicornWorker):
    """What gunicorn starts."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "proxy_headers": False,
        "server_header": False,
        "http": ImpatientProtocol,
    }
