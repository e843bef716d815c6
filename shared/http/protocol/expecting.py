"""Implements `Expect: 100-continue` (RFC 9110, 10.1.1): sends 100 when the handler reads the body.

Falcon receives a first piece before it calls a handler, at which uvicorn would send 100, even for a
request that is refused by its headers.
"""

from typing import Any, Protocol


class Connection(Protocol):
    """The part of a connection's protocol that `Deferred` uses."""

    def end_with(self, response: bytes) -> None:
        """Close the connection, after a response unless it is empty."""


class Deferred:
    """Wraps an ASGI app for one request with `Expect: 100-continue`.

    Its first `receive` returns an empty piece without sending 100. If the app responds without
    reading the body, the connection is closed: the client may send the body nevertheless, which
    must not be parsed as the next request.

    Args:
        app: the ASGI app.
        connection: of the request.

    Attributes:
        cycle: uvicorn's cycle of the request.
    """

    def __init__(self, app: Any, connection: Connection) -> None:
        self._app = app
        self._connection = connection
        self._is_asked = False
        self._is_refused = False
        self.cycle: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Called by uvicorn."""
        cycle = self.cycle
        if not cycle.more_body:  # it arrived with the head, or there is none
            cycle.waiting_for_100_continue = False

        async def receive_later() -> Any:
            if cycle.waiting_for_100_continue and not self._is_asked and not cycle.disconnected:
                self._is_asked = True
                return {"type": "http.request", "body": b"", "more_body": True}
            return await receive()

        async def answer(event: Any) -> None:
            if cycle.waiting_for_100_continue:
                self._is_refused = True
                cycle.keep_alive = False  # adds `Connection: close`
                await send(event)
                cycle.keep_alive = (
                    True  # otherwise uvicorn closes, and a reset may lose the response
                )
            else:
                await send(event)
            if self._is_refused and cycle.response_complete:
                self._connection.end_with(b"")

        await self._app(scope, receive_later, answer)
