"""Pages on a Falcon ASGI app: the session, the form's token, rights, a transaction in a thread."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, quote

import falcon
import falcon.asgi
import structlog
from falcon.asgi import Request, Response
from sqlalchemy.orm import Session

from services.ops.audit.actions import viewed
from services.ops.console.web.page import (
    SURE,
    File,
    Page,
    PageError,
    Redirect,
    Result,
    System,
    View,
    Visit,
)
from services.ops.console.web.rendering import render
from services.ops.users import sessions
from services.ops.users.rights import Right
from services.ops.users.users import User
from shared.bus import outbox
from shared.config.settings import Settings
from shared.db.session import is_database_away, transaction
from shared.http.errors import ApiError
from shared.http.mount import client_address, read_body

SESSION = "fellow_session"
FORM = "fellow_form"
"""The cookie of a browser in which nobody is signed in: the sign-in form has a token too."""
MARK = "fellow_known"
"""The cookie of a browser in which somebody has signed in before."""
MARK_SECONDS = 180 * 86_400
BOUND = "__Host-"
"""Before a cookie's name, has a browser take it over TLS and for this host alone, so that no other
host of the domain can set it (RFC 6265bis, 4.1.3.2)."""
MAX_FORM_BYTES = 1_048_576
SIGN_IN = "/sign-in"
SET_UP = "/second-factor"
DATABASE_AWAY = "The database does not answer. Nothing was changed."

log = structlog.get_logger()


def session_token(req: Request, config: Settings) -> str:
    """The token of the session that a request is of; empty where it names none."""
    return req.cookies.get(_cookie(SESSION, config), "")


def mount(
    app: falcon.asgi.App[Any, Any],
    pages: Iterable[Page],
    system: System,
    threads: ThreadPoolExecutor,
) -> None:
    """Add pages to an app.

    Args:
        app: strips trailing slashes.
        pages: what to add.
        system: what their handlers work on.
        threads: where handlers run; its size bounds how many do at a time.
    """
    by_path: dict[str, list[Page]] = defaultdict(list)
    for page in pages:
        by_path[page.path].append(page)
    for path, group in by_path.items():
        resource = type("Resource", (), {})()
        for page in group:
            responder = _responder(page, system, threads)
            setattr(resource, f"on_{page.method.lower()}", responder)
        app.add_route(path, resource)


def add_error_handlers(app: falcon.asgi.App[Any, Any]) -> None:
    """Make every error of the app a page."""

    async def on_page_error(_: Request, resp: Response, error: PageError, __: Any) -> None:
        _write_error(resp, error.status, error.sentence)

    async def on_api_error(_: Request, resp: Response, error: ApiError, __: Any) -> None:
        _write_error(resp, error.status, error.error)

    async def on_http_error(_: Request, resp: Response, error: falcon.HTTPError, __: Any) -> None:
        sentence = error.description or "There is no such page."
        _write_error(resp, error.status_code, sentence)

    async def on_exception(req: Request, resp: Response, error: Exception, __: Any) -> None:
        if is_database_away(error):
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            _write_error(resp, 503, DATABASE_AWAY)
            return
        log.error("unhandled_error", method=req.method, route=req.uri_template, exc_info=error)
        _write_error(resp, 500, "Something broke on our side. It was logged.")

    app.add_error_handler(Exception, on_exception)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    app.add_error_handler(ApiError, on_api_error)
    app.add_error_handler(PageError, on_page_error)


def _responder(page: Page, system: System, threads: ThreadPoolExecutor) -> Any:
    async def respond(req: Request, resp: Response, **path: str) -> None:
        own = session_token(req, system.config)
        token = own or req.cookies.get(_cookie(FORM, system.config), "")
        form: Mapping[str, list[str]] = {}
        if page.method == "POST":
            form = await _form(req, token)
        query = {name: _first(value) for name, value in req.params.items()}
        if "\0" in "".join((*query.values(), *path.values(), *chain.from_iterable(form.values()))):
            raise PageError(400, "There is a NUL in it, which nothing here can hold.")
        if not token:
            token = secrets.token_urlsafe(sessions.TOKEN_BYTES)
            _set_cookie(resp, FORM, token, system)

        def run() -> tuple[Result, str]:
            with transaction() as session:
                visitor = system.visitors.find(session, own, is_use=not page.asks_by_itself)
                if page.needs != "nobody" and visitor is None:
                    return _to_sign_in(req), ""
                if not page.before_second_factor and system.visitors.must_set_up(visitor):
                    return Redirect(SET_UP), ""
                if isinstance(page.needs, Right) and not _may(visitor, page.needs):
                    raise PageError(403, f"This needs the right {page.needs}, which you have not.")
                visit = Visit(
                    system=system,
                    visitor=visitor,
                    token=token,
                    path=path,
                    query=query,
                    form=form,
                    asked_for=req.path,
                    address=client_address(req),
                    client=req.user_agent or "",
                    mark=req.cookies.get(_cookie(MARK, system.config), ""),
                )
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

        loop = asyncio.get_running_loop()
        try:
            result, html = await loop.run_in_executor(threads, run)
        except Exception as error:
            if not is_database_away(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            result, html = await loop.run_in_executor(threads, run_without_database)
        _write(resp, result, html, system)

    return respond


def _answer(page: Page, session: Session, visit: Visit) -> Result:
    """What the page does; or first the question whether it shall."""
    if page.asks is None or visit.field(SURE) == "yes":
        return page.handler(session, visit)
    asked = page.asks(session, visit)
    if isinstance(asked, View):
        return asked
    again = [(name, value) for name, values in visit.form.items() for value in values]
    about = {"question": asked, "to": visit.asked_for, "fields": again, "sure": SURE}
    return View("question.html", about)


async def _form(req: Request, token: str) -> Mapping[str, list[str]]:
    """The fields of a form that one of our pages sent.

    Raises:
        PageError: 403, when it came from elsewhere.
    """
    # Every browser of today says where a request comes from (W3C, "Fetch Metadata").
    if req.get_header("Sec-Fetch-Site") not in (None, "same-origin", "none"):
        raise PageError(403, "The form was sent from another site.")
    body = await read_body(req, MAX_FORM_BYTES)
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=2_000)
    except ValueError:
        raise PageError(400, "The form cannot be read.") from None
    given = form.pop("form_token", [""])[0]
    if not token or not sessions.is_form_token(given, token):
        raise PageError(403, "The form is out of date: go back, load the page anew and try again.")
    return form


def _may(visitor: User | None, right: Right) -> bool:
    return visitor is not None and visitor.may(right)


def _rendered(
    view: View, token: str, visitor: User | None, note: str, *, masks: bool = True
) -> str:
    about = {
        "user": visitor,
        "form_token": sessions.form_token(token),
        "note": note,
        "path": "",
    }
    return render(view.template, about | dict(view.about), masks=masks)


def _to_sign_in(req: Request) -> Redirect:
    wanted = req.relative_uri if req.method == "GET" else "/"
    return Redirect(SIGN_IN if wanted == "/" else f"{SIGN_IN}?next={quote(wanted, safe='')}")


def _write(resp: Response, result: Result, html: str, system: System) -> None:
    if isinstance(result, View):
        resp.status = result.status
        resp.content_type = falcon.MEDIA_HTML
        resp.text = html
    elif isinstance(result, Redirect):
        resp.status = falcon.HTTP_303
        resp.location = result.to
        if result.mark:
            _set_cookie(resp, MARK, result.mark, system, max_age=MARK_SECONDS)
        if result.token:
            _set_cookie(resp, SESSION, result.token, system)
        elif result.token is not None:
            _set_cookie(resp, SESSION, "", system, max_age=0)
    else:
        resp.content_type = result.content_type
        resp.downloadable_as = result.name
        resp.data = result.content


def _set_cookie(
    resp: Response, name: str, value: str, system: System, max_age: int | None = None
) -> None:
    resp.set_cookie(
        _cookie(name, system.config),
        value,
        max_age=max_age,
        path="/",
        http_only=True,
        same_site="Strict",
        secure=_is_secure(system.config),
    )


def _cookie(name: str, config: Settings) -> str:
    return f"{BOUND}{name}" if _is_secure(config) else name


def _is_secure(config: Settings) -> bool:
    return config.environment == "production"


def _write_error(resp: Response, status: int, sentence: str) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_HTML
    resp.text = render("error.html", {"status": status, "sentence": sentence})


def _first(value: str | list[str]) -> str:
    return value[0] if isinstance(value, list) else value
