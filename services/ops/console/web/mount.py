"""Mounts the console's pages on Falcon: session, rights, one transaction in a thread."""

import asyncio
import threading
from collections.abc import Iterable
from functools import partial
from typing import Any

import falcon.asgi
import structlog

from services.ops.audit.actions import viewed
from services.ops.console.web.page import Page, System, Visit
from services.ops.console.web.rendering import render
from services.ops.monitoring.poller import SOON
from services.ops.users import sessions
from services.ops.users.queue_rights import lacking
from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus import outbox
from shared.db.deadline import ANSWER_SECONDS, NoAnswerError, within
from shared.db.session import is_database_unavailable, is_pool_exhausted, transaction
from shared.http.callers import client_address
from shared.http.lanes import Lane, Lanes
from shared.security.networks import network_of
from shared.web.answers import DATABASE_AWAY
from shared.web.arrivals import to_sign_in
from shared.web.mount import Arrived, Names, Result, Site, shown
from shared.web.results import RETRY_SECONDS, File, PageError, Redirect, View

SESSION = "fellow_session"
FORM = "fellow_form"
MARK = "fellow_known"
SET_UP = "/second-factor"
TOOK_LONG = (
    "The database has not done this in {:g} s. Nothing was changed. Narrow it down, or try again."
)
"""For a slow query, while the database answers probes."""

THREADS, WAITING = 4, 64
"""Separate from the threads that may be waiting for an unresponsive server."""

log = structlog.get_logger()


def mount(
    app: falcon.asgi.App[Any, Any], pages: Iterable[Page], system: System, lanes: Lanes
) -> None:
    """Add pages to an app, whose handlers work on `system`."""
    _Console(system, lanes).mount(app, pages)


class _Console(Site[Page]):
    def __init__(self, system: System, lanes: Lanes) -> None:
        super().__init__(system.config, lanes, Names(SESSION, FORM, MARK), render)
        self._system = system
        self._beside = Lane("console beside", THREADS, WAITING)

    @within(ANSWER_SECONDS)
    def signed_in(self, own: str) -> str:
        """Return the id of the session's user; empty without one."""
        if self._system.poller.is_database_unavailable:
            raise NoAnswerError("by the newest snapshot")
        with transaction() as session:
            user = sessions.find(session, own, self._system.config, is_use=False)
            return str(user.id) if user else ""

    async def answer(self, page: Page, here: Arrived) -> tuple[Result, str]:
        """Return a page's answer, or its fallback while the database is unreachable."""
        system, req = self._system, here.req

        def run(page: Page, here: Arrived) -> tuple[Result, str]:
            if system.poller.is_database_unavailable:
                raise NoAnswerError("by the newest snapshot")
            with transaction() as session:
                visitor = system.visitors.find(session, here.own, is_use=not page.asks_by_itself)
                if page.needs != "nobody" and visitor is None:
                    if page.asks_by_itself or here.req.get_header("HX-Request"):
                        raise PageError(403, "You are signed out: load the page anew.")
                    return Redirect(to_sign_in(here.req, here.sent, self.shows)), ""
                if not page.before_second_factor and system.visitors.must_set_up(visitor):
                    return Redirect(SET_UP), ""
                if visitor and isinstance(page.needs, Right) and not visitor.may(page.needs):
                    raise PageError(403, lacking(visitor, [page.needs]))
                visit = Visit(
                    page=page,
                    system=system,
                    visitor=visitor,
                    token=here.token,
                    path=here.path,
                    query=here.query,
                    form=here.sent.fields() if page.method == "POST" else here.typed,
                    asked_for=here.asked_for,
                    address=client_address(req),
                    client=req.user_agent or "",
                    mark=self.mark(req),
                )
                if page.also and (lacks := lacking(visit.user, page.also(session, visit))):
                    raise PageError(403, lacks)
                here.has_acted = page.acts(visit)
                result: Result = page.answer(visit, session)
                is_plain = any(_may(visitor, right) for right in page.plain)
                if is_plain and isinstance(result, View | File):
                    of = visit.path.values() if result.of is None else result.of
                    outbox.add(session, [viewed(visit.actor, f"{page.method} {page.path}", [*of])])
                if isinstance(result, Redirect) and result.note:
                    sessions.leave_note(session, result.token or here.own, result.note)
                if not isinstance(result, View):
                    return result, ""
                # A fragment cannot show the note.
                is_piece = page.asks_by_itself or here.req.get_header("HX-Request")
                is_read = visitor is not None and not is_piece
                note = sessions.take_note(session, here.token) if is_read else ""
                about = shown(
                    result, here.token, note, visit.form, refused=here.refused, user=visitor
                )
                # A page before the sign-in shows only what was typed into it.
                masks = page.needs != "nobody" and not is_plain
                return result, render(result.template, about, masks=masks)

        def run_without_database(away: str) -> tuple[Result, str]:
            visitor = system.visitors.recall(here.own)
            is_kept_out = visitor is None or system.visitors.must_set_up(visitor)
            if page.without_database is None or is_kept_out:
                raise PageError(503, away, RETRY_SECONDS)
            view = page.without_database(system)
            return view, render(view.template, shown(view, here.token, "", {}, user=visitor))

        caller = network_of(client_address(here.req))  # a cookie can be forged
        threads: list[int] = []

        @within(page.seconds)
        def answered() -> tuple[Result, str]:
            threads.append(threading.get_ident())
            return self.with_again(run, page, here)

        lane = self._beside if system.poller.is_database_unavailable else self.lane(page)
        try:
            waiting = asyncio.ensure_future(lane.run(answered, caller))
            if page.method == "GET" and await self._hangs(waiting, threads):
                # A running thread keeps waiting; by now the poller knows which server hangs.
                waiting.cancel()
                return await self._beside.run(answered, caller)
            return await waiting
        except Exception as error:
            if here.has_acted or is_pool_exhausted(error) or not is_database_unavailable(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            is_slow = isinstance(error, NoAnswerError) and not system.poller.is_database_unavailable
            away = TOOK_LONG.format(page.seconds) if is_slow else DATABASE_AWAY
            return await self._beside.run(partial(run_without_database, away), caller)

    async def _hangs(
        self, waiting: "asyncio.Future[tuple[Result, str]]", threads: list[int]
    ) -> bool:
        """Whether the answer, in the last of these threads, waits for an unresponsive server."""
        while not waiting.done():
            await asyncio.wait([waiting], timeout=SOON)
            thread = threads[-1] if threads else None
            if not waiting.done() and await self._system.poller.finds_hung(thread):
                return not waiting.done()
        return False


def _may(visitor: User | None, right: Right) -> bool:
    return visitor is not None and visitor.may(right)
