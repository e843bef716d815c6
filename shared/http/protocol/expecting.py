"""`Expect: 100-continue` (RFC 9110, 10.1.1): a body is asked for when somebody wants to read it.

Falcon waits for a first piece before it calls a handler, at which uvicorn would ask for the body:
also of a request that is refused for its head alone.
"""

from typing import Any, Protocol


class Connection(Protocol):
    """What ends a connection."""

    def end_with(self, words: bytes) -> None:
        """Close it, with an answer or with none."""


class Deferred:
    """An ASGI app that is told of one request's body before it is there.

    An answer without the body closes the connection: whether the client sends it all the same
    nobody can know, and another request must not be taken for it.

    Args:
        app: answers the request.
        connection: that it came by.

    Attributes:
        cycle: uvicorn's, of that request.
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
        if not cycle.more_body:  # it came with the head, or there is none
            cycle.waiting_for_100_continue = False

        async def receive_later() -> Any:
            if cycle.waiting_for_100_continue and not self._is_asked and not cycle.disconnected:
                self._is_asked = True
                return {"type": "http.request", "body": b"", "more_body": True}
            return await receive()

        async def answer(event: Any) -> None:
            if cycle.waiting_for_100_continue:
                self._is_refused = True
                cycle.keep_alive = False  # is said in the head
                await send(event)
                cycle.keep_alive = True  # else uvicorn closes, and a reset may take the answer
            else:
                await send(event)
            if self._is_refused and cycle.response_complete:
                self._connection.end_with(b"")

        await self._app(scope, receive_later, answer)
