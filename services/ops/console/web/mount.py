"""Pages on a Falcon ASGI app: the session, the form's token, rights, a transaction in a thread."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import falcon.asgi
import structlog
from falcon.asgi import Request, Response
from sqlalchemy.orm import Session

from services.ops.audit.actions import viewed
from services.ops.console.web.page import File, Page, Result, System, View, Visit
from services.ops.console.web.rendering import render
from services.ops.users import sessions
from services.ops.users.queue_rights import lacking
from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus import outbox
from shared.config.settings import Settings
from shared.db.deadline import NoAnswerError, within
from shared.db.session import is_database_away, is_used_up, transaction
from shared.http.lanes import Lanes
from shared.http.mount import client_address
from shared.web import cookies
from shared.web.answers import DATABASE_AWAY, DATABASE_LEFT, write_file, write_redirect, write_view
from shared.web.arrivals import hides_cookies, lead_on, to_sign_in
from shared.web.forms import (
    MAX_FORM_BYTES,
    MAX_STRANGERS_BYTES,
    SentForm,
    read_form,
    read_query,
    refuse_nul,
)
from shared.web.results import SURE, PageError, Redirect
from shared.web.tokens import form_token, new_token

SESSION = "fellow_session"
FORM = "fellow_form"
"""The cookie of a browser in which nobody is signed in: the sign-in form has a token too."""
MARK = "fellow_known"
"""The cookie of a browser in which somebody has signed in before."""
SET_UP = "/second-factor"

log = structlog.get_logger()


def session_token(req: Request, config: Settings) -> str:
    """The token of the session that a request is of; empty where it names none."""
    return cookies.get(req, SESSION, config)


def mount(
    app: falcon.asgi.App[Any, Any],
    pages: Iterable[Page],
    system: System,
    lanes: Lanes,
) -> None:
    """Add pages to an app.

    Args:
        app: strips trailing slashes.
        pages: what to add.
        system: what their handlers work on.
        lanes: where handlers run.
    """
    by_path: dict[str, list[Page]] = defaultdict(list)
    for page in pages:
        by_path[page.path].append(page)
    for path, group in by_path.items():
        resource = type("Resource", (), {})()
        for page in group:
            responder = _responder(page, system, lanes)
            setattr(resource, f"on_{page.method.lower()}", responder)
        app.add_route(path, resource)


def _responder(page: Page, system: System, lanes: Lanes) -> Any:
    lane = lanes.passwords if page.takes_password else lanes.ordinary
    most = MAX_STRANGERS_BYTES if page.needs == "nobody" else MAX_FORM_BYTES

    async def respond(req: Request, resp: Response, **path: str) -> None:
        own, unsigned = session_token(req, system.config), cookies.get(req, FORM, system.config)
        token = own or unsigned
        if page.method == "GET" and not token and hides_cookies(req):
            view = lead_on(req)
            write_view(resp, view, render(view.template, dict(view.about)))
            return
        sent = SentForm()
        if page.method == "POST":
            # Somebody may have signed in since the page was made, in another tab.
            made_for = (own, unsigned) if page.needs == "nobody" else (token,)
            sent = await read_form(req, *made_for, most=most)
        query = read_query(req)
        refuse_nul((*query.values(), *path.values()))
        if not token:
            token = new_token()
            cookies.put(resp, FORM, token, system.config)

        has_acted = False

        @within(page.seconds)
        def run() -> tuple[Result, str]:
            nonlocal has_acted
            if system.lookout.is_database_away:
                raise NoAnswerError("the newest look says so")
            with transaction() as session:
                visitor = system.visitors.find(session, own, is_use=not page.asks_by_itself)
                if page.needs != "nobody" and visitor is None:
                    if page.asks_by_itself or req.get_header("HX-Request"):
                        raise PageError(403, "You are signed out: load the page anew.")
                    return Redirect(to_sign_in(req, sent)), ""
                if not page.before_second_factor and system.visitors.must_set_up(visitor):
                    return Redirect(SET_UP), ""
                if visitor and isinstance(page.needs, Right) and not visitor.may(page.needs):
                    raise PageError(403, lacking(visitor, [page.needs]))
                visit = Visit(
                    page=page,
                    system=system,
                    visitor=visitor,
                    token=token,
                    path=path,
                    query=query,
                    form=sent.fields() if page.method == "POST" else {},
                    asked_for=req.path,
                    address=client_address(req),
                    client=req.user_agent or "",
                    mark=cookies.get(req, MARK, system.config),
                )
                if page.also and (lacks := lacking(visit.user, page.also(session, visit))):
                    raise PageError(403, lacks)
                has_acted = _acts(page, visit)
                result = _answer(page, session, visit)
                is_plain = any(_may(visitor, right) for right in page.plain)
                if is_plain and isinstance(result, View | File):
                    of = visit.path.values() if result.of is None else result.of
                    outbox.add(session, [viewed(visit.actor, f"{page.method} {page.path}", [*of])])
                if isinstance(result, Redirect) and result.note:
                    sessions.leave_note(session, result.token or own, result.note)
                if not isinstance(result, View):
                    return result, ""
                note = sessions.take_note(session, token) if visitor else ""
                # What nobody is signed in for shows what was typed in, and nothing else.
                masks = page.needs != "nobody" and not is_plain
                return result, _rendered(result, token, visitor, note, masks=masks)

        def run_without_database() -> tuple[Result, str]:
            visitor = system.visitors.recall(own)
            is_kept_out = visitor is None or system.visitors.must_set_up(visitor)
            if page.without_database is None or is_kept_out:
                raise PageError(503, DATABASE_AWAY)
            view = page.without_database(system)
            return view, _rendered(view, token, visitor, "")

        try:
            result, html = await lane.run(run)
        except Exception as error:
            if is_used_up(error) and not has_acted:
                raise
            if not is_database_away(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            if has_acted:
                raise PageError(503, DATABASE_LEFT) from None
            result, html = await lane.run(run_without_database)
        _write(resp, result, html, system)

    return respond


def _answer(page: Page, session: Session, visit: Visit) -> Result:
    """What the page does; or first the question whether it shall."""
    if page.asks is None or visit.field(SURE) == "yes":
        return page.handler(session, visit)
    asked = page.asks(session, visit)
    if isinstance(asked, View):
        return asked
    return View("question.html", asked.about(visit.form, visit.asked_for))


def _acts(page: Page, visit: Visit) -> bool:
    """Whether the page changes something now, and does not ask first."""
    return page.method == "POST" and (page.asks is None or visit.field(SURE) == "yes")


def _may(visitor: User | None, right: Right) -> bool:
    return visitor is not None and visitor.may(right)


def _rendered(
    view: View, token: str, visitor: User | None, note: str, *, masks: bool = True
) -> str:
    about = {
        "user": visitor,
        "form_token": form_token(token),
        "note": note,
        "path": "",
    }
    return render(view.template, about | dict(view.about), masks=masks)


def _write(resp: Response, result: Result, html: str, system: System) -> None:
    if isinstance(result, View):
        write_view(resp, result, html)
    elif isinstance(result, Redirect):
        write_redirect(resp, result.to)
        if result.mark:
            cookies.put(resp, MARK, result.mark, system.config, max_age=cookies.MARK_SECONDS)
        if result.token:
            cookies.put(resp, SESSION, result.token, system.config)
        elif result.token is not None:
            cookies.forget(resp, SESSION, system.config)
    else:
        write_file(resp, result)
