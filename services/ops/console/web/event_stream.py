"""Server-sent events (HTML standard, 9.2) that keep a page current.

Each event is the new HTML content of the listening element.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

import falcon
from falcon.asgi import Request, Response, SSEvent

from services.ops.console.web.mount import SESSION
from services.ops.console.web.page import System
from services.ops.monitoring.snapshot import Snapshot
from services.ops.users.users import User
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import is_database_unavailable, transaction
from shared.http.lanes import Lane
from shared.web import cookies
from shared.web.results import PageError

THREADS, WAITING = 2, 128
CHECK_SECONDS = 15.0
"""How long a stream may go on after its user has signed out, at most."""


class Live:
    """Streams snapshots as HTML to signed-in users.

    Args:
        system: its poller is watched.
        show: renders a snapshot.
    """

    def __init__(self, system: System, show: Callable[[Snapshot], str]) -> None:
        self._system = system
        # A separate lane: streams that wait for a session must not block pages.
        self._lane = Lane("streams", THREADS, WAITING)
        self._show = show
        self._rendering = asyncio.Lock()
        self._shown: tuple[Snapshot | None, str] = (None, "")

    async def on_get(self, req: Request, resp: Response) -> None:
        """Stream every snapshot from now on.

        Raises:
            PageError: 403, without a session.
        """
        token = cookies.get(req, SESSION, self._system.config)
        if not await self._is_signed_in(token):
            raise PageError(403, "Sign in first.")
        resp.content_type = "text/event-stream; charset=utf-8"
        resp.status = falcon.HTTP_200
        resp.sse = self._events(token)

    async def _events(self, token: str) -> AsyncIterator[SSEvent]:
        checked = monotonic()
        async for snapshot in self._system.poller.watch():
            if monotonic() - checked > CHECK_SECONDS:
                checked = monotonic()
                if not await self._is_signed_in(token):
                    return
            yield SSEvent(text=await self._html(snapshot))

    async def _html(self, snapshot: Snapshot) -> str:
        # Rendered once for all streams, outside the event loop.
        async with self._rendering:
            if self._shown[0] is not snapshot:
                html = await self._lane.run(lambda: self._show(snapshot))
                # In one line: every line of an event needs a field name.
                self._shown = (snapshot, " ".join(html.split()))
            return self._shown[1]

    async def _is_signed_in(self, token: str) -> bool:
        visitors = self._system.visitors

        @within(ANSWER_SECONDS)
        def find() -> User | None:
            if self._system.poller.is_database_unavailable:
                return visitors.recall(token)
            with transaction() as session:
                return visitors.find(session, token, is_use=False)

        def is_valid() -> bool:
            try:
                user = find()
            except Exception as error:
                if not is_database_unavailable(error):
                    raise
                user = visitors.recall(token)
            return user is not None and not visitors.must_set_up(user)

        return await self._lane.run(is_valid)
