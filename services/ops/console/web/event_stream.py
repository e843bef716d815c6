"""Server-sent events (HTML standard, 9.2): pages that show what is so now.

An event is the new inside of the element that listens, ready to be put there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

import falcon
from falcon.asgi import Request, Response, SSEvent

from services.ops.console.web.mount import SESSION
from services.ops.console.web.page import System
from services.ops.monitoring.snapshot import Look
from services.ops.users.users import User
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import is_database_away, transaction
from shared.http.lanes import Lane
from shared.web import cookies
from shared.web.results import PageError

THREADS, WAITING = 2, 128
CHECK_SECONDS = 15.0
"""How long a stream may go on after its user has signed out."""


class Live:
    """A stream for everybody who is signed in.

    Args:
        system: whose lookout to watch.
        show: from a look to HTML.
    """

    def __init__(self, system: System, show: Callable[[Look], str]) -> None:
        self._system = system
        # Of their own: however many streams wait for a session, pages go on.
        self._lane = Lane("streams", THREADS, WAITING)
        self._show = show
        self._rendering = asyncio.Lock()
        self._shown: tuple[Look | None, str] = (None, "")

    async def on_get(self, req: Request, resp: Response) -> None:
        """Every look as it comes."""
        token = cookies.get(req, SESSION, self._system.config)
        if not await self._is_signed_in(token):
            raise PageError(403, "Sign in first.")
        resp.content_type = "text/event-stream; charset=utf-8"
        resp.status = falcon.HTTP_200
        resp.sse = self._events(token)

    async def _events(self, token: str) -> AsyncIterator[SSEvent]:
        checked = monotonic()
        async for look in self._system.lookout.watch():
            if monotonic() - checked > CHECK_SECONDS:
                checked = monotonic()
                if not await self._is_signed_in(token):
                    return
            yield SSEvent(text=await self._html(look))

    async def _html(self, look: Look) -> str:
        # Rendered once, however many watch, and not in the loop.
        async with self._rendering:
            if self._shown[0] is not look:
                html = await self._lane.run(lambda: self._show(look))
                # In one line: each line of an event would need a name of its own.
                self._shown = (look, " ".join(html.split()))
            return self._shown[1]

    async def _is_signed_in(self, token: str) -> bool:
        visitors = self._system.visitors

        @within(ANSWER_SECONDS)
        def find() -> User | None:
            if self._system.lookout.is_database_away:
                return visitors.recall(token)
            with transaction() as session:
                return visitors.find(session, token, is_use=False)

        def look() -> bool:
            try:
                user = find()
            except Exception as error:
                if not is_database_away(error):
                    raise
                user = visitors.recall(token)
            return user is not None and not visitors.must_set_up(user)

        return await self._lane.run(look)
