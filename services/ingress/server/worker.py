"""The gunicorn worker: uvicorn's, with one system call an answer, and a last request at its end."""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn_worker import UvicornWorker

from services.ingress.server.corked_transport import CorkedTransport
from shared.http.protocol.request_timeout import ImpatientProtocol

# A worker that stops still answers what comes on kept connections within this time, and says there
# that it closes them: the sender of a request that is on its way just then would get no answer.
LAST_REQUEST_SECONDS = 1.0


class CorkedProtocol(ImpatientProtocol):
    """One connection."""

    _stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, self.loop)))

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


class Worker(UvicornWorker):
    """What gunicorn starts."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "proxy_headers": False,
        "server_header": False,
        "headers": [("X-Content-Type-Options", "nosniff")],  # encoded once, of every answer
        "http": CorkedProtocol,
    }
