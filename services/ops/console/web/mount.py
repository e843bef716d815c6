"""The console's pages on a Falcon ASGI app: the session, rights, a transaction in a thread."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import falcon.asgi
import structlog

from services.ops.audit.actions import viewed
from services.ops.console.web.page import Page, System, Visit
from services.ops.console.web.rendering import render
from services.ops.users import sessions
from services.ops.users.queue_rights import lacking
from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus import outbox
from shared.db.deadline import ANSWER_SECONDS, NoAnswerError, within
from shared.db.session import is_database_away, is_used_up, transaction
from shared.http.callers import client_address
from shared.http.lanes import Lanes
from shared.security.networks import network_of
from shared.web.answers import DATABASE_AWAY
from shared.web.arrivals import to_sign_in
from shared.web.mount import Arrived, Names, Result, Site, shown
from shared.web.results import File, PageError, Redirect, View

SESSION = "fellow_session"
FORM = "fellow_form"
MARK = "fellow_known"
SET_UP = "/second-factor"
TOOK_LONG = (
    "The database has not done this in {:g} s. Nothing was changed. Narrow it down, or try again."
)
"""Said while it answers whoever looks whether it is there."""

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

    @within(ANSWER_SECONDS)
    def signed_in(self, own: str) -> str:
        """Whose session it is."""
        if self._system.lookout.is_database_away:
            raise NoAnswerError("the newest look says so")
        with transaction() as session:
            user = sessions.find(session, own, self._system.config, is_use=False)
            return str(user.id) if user else ""

    async def answer(self, page: Page, here: Arrived) -> tuple[Result, str]:
        """What a page answers; while the database is away, what it has without it."""
        system, req = self._system, here.req

        def run(page: Page, here: Arrived) -> tuple[Result, str]:
            if system.lookout.is_database_away:
                raise NoAnswerError("the newest look says so")
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
                # A piece of a page has no place for it.
                is_piece = page.asks_by_itself or here.req.get_header("HX-Request")
                is_read = visitor is not None and not is_piece
                note = sessions.take_note(session, here.token) if is_read else ""
                about = shown(
                    result, here.token, note, visit.form, refused=here.refused, user=visitor
                )
                # What nobody is signed in for shows what was typed in, and nothing else.
                masks = page.needs != "nobody" and not is_plain
                return result, render(result.template, about, masks=masks)

        def run_without_database(away: str) -> tuple[Result, str]:
            visitor = system.visitors.recall(here.own)
            is_kept_out = visitor is None or system.visitors.must_set_up(visitor)
            if page.without_database is None or is_kept_out:
                raise PageError(503, away)
            view = page.without_database(system)
            return view, render(view.template, shown(view, here.token, "", {}, user=visitor))

        caller = network_of(client_address(here.req))  # a cookie is anybody's word
        try:
            answered = within(page.seconds)(self.with_again)
            return await self.lane(page).run(partial(answered, run, page, here), caller)
        except Exception as error:
            if here.has_acted or is_used_up(error) or not is_database_away(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            is_slow = isinstance(error, NoAnswerError) and not system.lookout.is_database_away
            away = TOOK_LONG.format(page.seconds) if is_slow else DATABASE_AWAY
            return await self.lane(page).run(partial(run_without_database, away), caller)


def _may(visitor: User | None, right: Right) -> bool:
    return visitor is not None and visitor.may(right)
