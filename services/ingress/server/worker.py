"""The gunicorn worker: uvicorn's, with one system call an answer and a grace period at its stop."""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn_worker import UvicornWorker

from services.ingress.server.corked_transport import CorkedTransport
from shared.http.protocol.request_timeout import RequestTimeoutProtocol

# A stopping worker answers a request on an idle connection within this time, with `Connection:
# close`. Otherwise a request that is in flight at that moment gets no answer.
LAST_REQUEST_SECONDS = 1.0


class CorkedProtocol(RequestTimeoutProtocol):
    """One connection, with a `CorkedTransport`."""

    _stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wrap the transport; called by asyncio."""
        super().connection_made(cast("asyncio.Transport", CorkedTransport(transport, self.loop)))

    def on_headers_complete(self) -> None:
        """Close the connection after this request if the worker stops; called by httptools."""
        super().on_headers_complete()
        if self._stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection after its request, or once idle; called by uvicorn at the stop."""
        self._stopping = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self.transport.is_closing():
            self.loop.call_later(LAST_REQUEST_SECONDS, self._close_when_idle)

    def _close_when_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Worker(UvicornWorker):
    """The worker class of gunicorn."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "proxy_headers": False,
        "server_header": False,
        "headers": [("X-Content-Type-Options", "nosniff")],  # encoded once, of every answer
        "http": CorkedProtocol,
    }
