"""Pages on a Falcon ASGI app: the session, the form's token, the API by the browser's own token."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from services.portal.web import sessions
from services.portal.web.api import Api, Refused, SignedOut
from services.portal.web.page import SEALED, Page, Renew, Result, SignIn, Visit
from services.portal.web.rendering import render
from services.portal.web.sessions import Browser, Held
from shared.config.settings import Settings
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import is_database_away, transaction
from shared.http.lanes import Lanes
from shared.http.mount import client_address
from shared.security.encryption import CannotOpenError, portal_sealer
from shared.web import cookies
from shared.web.answers import DATABASE_LEFT, write_file, write_redirect, write_view
from shared.web.arrivals import hides_cookies, lead_on, to_sign_in
from shared.web.forms import (
    MAX_FORM_BYTES,
    MAX_STRANGERS_BYTES,
    SentFile,
    SentForm,
    read_form,
    read_query,
    refuse_nul,
)
from shared.web.results import SURE, PageError, Redirect, View, own_path
from shared.web.tokens import form_token, hashed, new_token

SESSION = "portal_session"
FORM = "portal_form"
"""The cookie of a browser in which nobody is signed in: the sign-in form has a token too."""
MARK = "portal_known"
"""The cookie of a browser in which somebody has signed in before."""
MAX_CLIENT = 200

log = structlog.get_logger()


def mount(
    app: falcon.asgi.App[Any, Any],
    pages: Iterable[Page],
    config: Settings,
    api: Api,
    lanes: Lanes,
) -> None:
    """Add pages to an app.

    Args:
        app: strips trailing slashes.
        pages: what to add.
        config: the settings.
        api: what they ask.
        lanes: where handlers run.
    """
    by_path: dict[str, list[Page]] = defaultdict(list)
    for page in pages:
        by_path[page.path].append(page)
    for path, group in by_path.items():
        resource = type("Resource", (), {})()
        for page in group:
            responder = _responder(page, config, api, lanes)
            setattr(resource, f"on_{page.method.lower()}", responder)
        app.add_route(path, resource)


def _responder(page: Page, config: Settings, api: Api, lanes: Lanes) -> Any:
    lane = lanes.passwords if page.takes_password else lanes.ordinary
    most = MAX_STRANGERS_BYTES if page.needs == "nobody" else MAX_FORM_BYTES

    async def respond(req: Request, resp: Response, **path: str) -> None:
        own, unsigned = cookies.get(req, SESSION, config), cookies.get(req, FORM, config)
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
            cookies.put(resp, FORM, token, config)
        client = (req.user_agent or "")[:MAX_CLIENT]
        browser = Browser(client_address(req), client)

        def renewed(access: str) -> str:
            held = sessions.renew(own, api, browser, access)
            if held is None:
                raise SignedOut
            return held.access

        def signed_out() -> Redirect:
            if page.asks_by_itself:
                raise PageError(403, "You are signed out: load the page anew.")
            # A browser that comes from another site does not show its cookie, and keeps it (RFC
            # 6265bis, 8.8.2): what it did not show is not taken from it.
            return Redirect(to_sign_in(req, sent), token="" if own else None)

        has_acted = False

        @within(ANSWER_SECONDS)
        def run() -> tuple[Result, str]:
            nonlocal has_acted
            held = sessions.find(own, api, browser)
            if page.needs == "business" and held is None:
                return signed_out(), ""
            form: Mapping[str, list[str]] = {}
            files: dict[str, SentFile] = {}
            if page.method == "POST":
                into = files if page.takes_files else None
                form = _unsealed(sent.fields(into), token)
            access = held.access if held else ""
            asking = api.for_browser(browser.address, client, access, renewed)
            mark = cookies.get(req, MARK, config)
            visit = Visit(page, asking, held, config, path, query, form, files, mark)
            has_acted = _acts(page, visit)
            try:
                result = _answer(page, visit, req.path, token)
            except SignedOut:
                return signed_out(), ""
            if isinstance(result, SignIn):
                if held is not None:
                    # In another tab: nobody has that session's tokens from now on.
                    with suppress(PageError, Refused):
                        asking.post("/users/auth/logout/", {"refresh": held.refresh})
                with transaction() as session:
                    sessions.end(session, own)
                    begun = sessions.start(session, result.answer)
                known_by = result.answer.get("device_token", "")  # of an older API none
                return Redirect(own_path(result.to), token=begun, mark=known_by), ""
            if isinstance(result, Renew):
                # It is done already, and the next renewal shows it too.
                with suppress(PageError, Refused):
                    sessions.renew(own, api, browser, asking.access)
            if isinstance(result, Redirect):
                with transaction() as session:
                    if result.token == "":
                        sessions.end(session, own)
                    elif result.note:
                        sessions.leave_note(session, own, result.note)
            if not isinstance(result, View):
                return result, ""
            note = ""
            if held is not None and not page.asks_by_itself:
                with transaction() as session:
                    note = sessions.take_note(session, own)
            return result, _rendered(result, token, held, note)

        try:
            result, html = await lane.run(run)
        except Exception as error:
            if not has_acted or not is_database_away(error):
                raise
            log.warning("database_away", route=req.uri_template, error=type(error).__name__)
            raise PageError(503, DATABASE_LEFT) from None
        if isinstance(result, View):
            write_view(resp, result, html)
        elif isinstance(result, Redirect):
            write_redirect(resp, result.to)
            if result.mark:
                cookies.put(resp, MARK, result.mark, config, max_age=cookies.MARK_SECONDS)
            if result.token:
                cookies.put(resp, SESSION, result.token, config)
            elif result.token is not None:
                cookies.forget(resp, SESSION, config)
        else:
            write_file(resp, result)

    return respond


def _answer(page: Page, visit: Visit, asked_for: str, token: str) -> Result | SignIn:
    """What the page does; or first the question whether it shall."""
    if page.asks is None or visit.field(SURE) == "yes":
        return page.handler(visit)
    asked = page.asks(visit)
    if isinstance(asked, View):
        return asked
    return View("question.html", asked.about(_sealed(visit.form, token), asked_for))


def _acts(page: Page, visit: Visit) -> bool:
    """Whether the page changes something now, and does not ask first."""
    return page.method == "POST" and (page.asks is None or visit.field(SURE) == "yes")


def _sealed(form: Mapping[str, list[str]], token: str) -> Mapping[str, list[str]]:
    """The fields of a form as a page may hold them: no password can be read in it."""
    return {
        name: [_seal(value, name, token) for value in values] if name in SEALED else values
        for name, values in form.items()
    }


def _unsealed(form: Mapping[str, list[str]], token: str) -> Mapping[str, list[str]]:
    if form.get(SURE) != ["yes"]:
        return form
    try:
        return {
            name: [_unseal(value, name, token) for value in values] if name in SEALED else values
            for name, values in form.items()
        }
    except (CannotOpenError, ValueError):
        raise PageError(400, "The form is out of date: go back and try again.") from None


def _seal(value: str, name: str, token: str) -> str:
    return portal_sealer().seal(value.encode(), f"{name}:{hashed(token).hex()}").hex()


def _unseal(value: str, name: str, token: str) -> str:
    return portal_sealer().open(bytes.fromhex(value), f"{name}:{hashed(token).hex()}").decode()


def _rendered(view: View, token: str, held: Held | None, note: str) -> str:
    about = {"business": held, "form_token": form_token(token), "note": note, "path": ""}
    return render(view.template, about | dict(view.about))
