"""Adds the portal's pages to a Falcon ASGI app: browser session, API client, rendering."""

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import falcon.asgi

from services.portal.web import sessions
from services.portal.web.api import Api, Refused, SignedOut
from services.portal.web.page import SEALED, Page, Renew, SignIn, Visit, seal, unseal
from services.portal.web.rendering import render
from services.portal.web.sessions import Browser
from shared.config.settings import Settings
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import transaction
from shared.http.callers import client_address
from shared.http.lanes import Lanes
from shared.security.encryption import CannotOpenError
from shared.security.networks import network_of
from shared.web.arrivals import to_sign_in
from shared.web.forms import SentFile
from shared.web.mount import Arrived, Form, Names, Result, Site, shown
from shared.web.results import SURE, PageError, Redirect, View, own_path

SESSION = "portal_session"
FORM = "portal_form"
MARK = "portal_known"
MAX_CLIENT = 200


def mount(
    app: falcon.asgi.App[Any, Any], pages: Iterable[Page], config: Settings, api: Api, lanes: Lanes
) -> None:
    """Add pages to an app.

    Args:
        app: the app.
        pages: the pages.
        config: the settings.
        api: the API that the pages call.
        lanes: the threads in which they run.
    """
    _Portal(config, api, lanes).mount(app, pages)


class _Portal(Site[Page]):
    def __init__(self, config: Settings, api: Api, lanes: Lanes) -> None:
        super().__init__(config, lanes, Names(SESSION, FORM, MARK), render)
        self._api = api

    @within(ANSWER_SECONDS)
    def signed_in(self, own: str) -> str:
        """Return the account id of a session token; empty if it is not signed in."""
        with transaction() as session:
            held = sessions.held_of(session, own)
            return held.account_id if held else ""

    async def answer(self, page: Page, here: Arrived) -> tuple[Result, str]:
        """Run a page; return its result and, for a view, the HTML."""
        api, own, token = self._api, here.own, here.token
        client = (here.req.user_agent or "")[:MAX_CLIENT]
        browser = Browser(client_address(here.req), client)

        def renewed(access: str) -> str:
            held = sessions.renew(own, api, browser, access)
            if held is None:
                raise SignedOut
            return held.access

        # A fragment has no place for a note or for the sign-in page.
        is_fragment = page.asks_by_itself or bool(here.req.get_header("HX-Request"))

        def signed_out() -> Redirect:
            if is_fragment:
                raise PageError(403, "You are signed out: load the page anew.")
            # A browser that comes from another site does not send its cookie but keeps it (RFC
            # 6265bis, 8.8.2): do not clear a cookie that was not sent.
            to = to_sign_in(here.req, here.sent, self.shows)
            return Redirect(to, token="" if own else None)

        def run(page: Page, here: Arrived) -> tuple[Result, str]:
            if page.ends:
                with transaction() as session:
                    held = sessions.held_of(session, own)
            else:
                held = sessions.find(own, api, browser)
            if page.needs == "business" and held is None:
                return signed_out(), ""
            form = here.typed
            files: dict[str, SentFile] = {}
            if page.method == "POST":
                into = files if page.takes_files else None
                form = _unsealed(here.sent.fields(into), token)
            access = held.access if held else ""
            client_of_api = api.for_browser(browser.address, client, access, renewed)
            visit = Visit(
                page=page,
                api=client_of_api,
                held=held,
                config=self._config,
                path=here.path,
                query=here.query,
                form=form,
                files=files,
                token=token,
                asked_for=here.asked_for,
                mark=self.mark(here.req),
            )
            here.has_acted = page.acts(visit)
            if page.ends:
                with transaction() as session:
                    sessions.end(session, own)
            try:
                result: Result | SignIn = page.answer(visit, seal=partial(_sealed, token=token))
            except SignedOut:
                return signed_out(), ""
            if isinstance(result, SignIn):
                if held is not None:
                    # Signed in by another tab: end that session, whose tokens are discarded here.
                    with suppress(PageError, Refused):
                        client_of_api.post("/users/auth/logout/", {"refresh": held.refresh})
                with transaction() as session:
                    sessions.end(session, own)
                    begun = sessions.start(session, result.answer)
                mark = result.answer.get("device_token", "")  # missing from an older API
                return Redirect(own_path(result.to), token=begun, mark=mark), ""
            if isinstance(result, Renew):
                # The change is done; if this fails, the next renewal shows it.
                with suppress(PageError, Refused):
                    sessions.renew(own, api, browser, client_of_api.access)
            if isinstance(result, Redirect):
                with transaction() as session:
                    if result.token == "":
                        sessions.end(session, own)
                    elif result.note:
                        sessions.leave_note(session, own, result.note)
            if not isinstance(result, View):
                return result, ""
            note = ""
            if held is not None and not is_fragment:
                with transaction() as session:
                    note = sessions.take_note(session, own)
            about = shown(result, token, note, form, refused=here.refused, business=held)
            return result, render(result.template, about)

        caller = network_of(browser.address)  # not the cookie, which is unverified
        answered = within(ANSWER_SECONDS)(self.with_again)
        return await self.lane(page).run(partial(answered, run, page, here), caller)


def _sealed(form: Form, token: str) -> Form:
    """The fields of a form as a page may hold them: no password can be read in it."""
    return {
        name: [seal(value, name, token) for value in values] if name in SEALED else values
        for name, values in form.items()
    }


def _unsealed(form: Form, token: str) -> Form:
    if form.get(SURE) != ["yes"]:
        return form
    try:
        return {
            name: [unseal(value, name, token) for value in values] if name in SEALED else values
            for name, values in form.items()
        }
    except (CannotOpenError, ValueError):
        raise PageError(400, "The form is out of date: go back and try again.") from None
