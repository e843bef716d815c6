"""`Expect: 100-continue` (RFC 9110, 10.1.1): a body is asked for when somebody wants to read it.

Falcon waits for a first piece before it calls a handler, at which uvicorn would ask for the body:
also of a request that is refused for its head alone.
"""

from collections.abc import Callable
from typing import Any


def deferred(app: Any, cycle: Any, end_with: Callable[[bytes], None]) -> Any:
    """An ASGI app that is told of a body before it is there.

    An answer without the body closes the connection: whether the client sends it all the same
    nobody can know, and another request must not be taken for it.

    Args:
        app: answers one request.
        cycle: uvicorn's, of that request.
        end_with: closes the connection, with nothing said.
    """

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if not cycle.more_body:  # it came with the head, or there is none
            cycle.waiting_for_100_continue = False
            await app(scope, receive, send)
            return
        is_first = True
        is_refused = False

        async def receive_later() -> Any:
            nonlocal is_first
            if is_first and not cycle.disconnected:
                is_first = False
                return {"type": "http.request", "body": b"", "more_body": True}
            return await receive()

        async def answer(event: Any) -> None:
            nonlocal is_refused
            if cycle.waiting_for_100_continue and cycle.more_body:
                is_refused = True
                cycle.keep_alive = False  # is said in the head
                await send(event)
                cycle.keep_alive = True  # else uvicorn closes, and a reset may take the answer
            else:
                await send(event)
            if is_refused and cycle.response_complete:
                end_with(b"")

        await app(scope, receive_later, answer)

    return call
