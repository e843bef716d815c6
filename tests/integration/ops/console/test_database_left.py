"""A database that goes away in the middle of an act: nobody says that nothing was done."""

import falcon.asgi
import pytest
from falcon.testing import TestClient

from services.ops.console.app import Console
from services.ops.console.web import mount as console
from services.ops.console.web import page as console_page
from services.ops.console.web.rendering import render as console_render
from services.portal.web import mount as portal
from services.portal.web import page as portal_page
from services.portal.web.api import Api
from services.portal.web.rendering import render as portal_render
from shared.db.session import transaction
from shared.web.answers import DATABASE_AWAY, DATABASE_LEFT, add_error_handlers
from shared.web.results import Question, Redirect
from shared.web.tokens import form_token
from tests.integration.arrange import account, lanes
from tests.integration.gate import Gate

PATH = "/act"
TOKEN = "a-browser"


@pytest.fixture
def gate(settings, configure):
    with Gate(settings.database_url) as made:
        configure(database_url=made.url)
        yield made


def console_site(config, act, asks):
    page = console_page.Page("POST", PATH, "nobody", lambda *_: act(), asks=asks)
    return lambda app, threads: console.mount(app, [page], Console(config).system, threads)


def portal_site(config, act, asks):
    asked = asks and (lambda visit: asks(None, visit))
    page = portal_page.Page("POST", PATH, "nobody", lambda _: act(), asks=asked)
    return lambda app, threads: portal.mount(app, [page], config, Api(config), threads)


SITES = {
    console_site: (console.SESSION, console.FORM, console_render, Redirect),
    portal_site: (portal.SESSION, portal.FORM, portal_render, Redirect),
}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("when", ["before", "while asked", "after"])
def test_what_is_said_when_the_database_goes_away(gate, configure, db, site, when):
    session_cookie, form, render, redirect = SITES[site]
    config = configure(database_url=gate.url)

    def act():
        # It is done by its own means; then the page's own transaction has nothing to end in.
        with transaction() as session:
            account(session, company_name="Done")
        gate.cut()
        return redirect("/", "It is done.")

    def ask(_, __):
        gate.cut()
        with transaction() as session:
            return Question(str(session.connection()), "x", "/")

    app = falcon.asgi.App()
    add_error_handlers(app, render)
    with lanes() as threads:
        site(config, act, ask)(app, threads)
        if when == "before":
            gate.cut()
        sure = {} if when == "while asked" else {"sure": "yes"}
        fields = {"form_token": form_token(TOKEN)} | sure
        body = "&".join(f"{name}={value}" for name, value in fields.items())
        answer = TestClient(app).simulate_post(
            PATH,
            body=body,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            # Somebody who is signed in is looked up, before anything is begun.
            cookies={session_cookie if when == "before" else form: TOKEN},
        )
    assert answer.status_code == 503, answer.text
    said = DATABASE_LEFT if when == "after" else DATABASE_AWAY
    assert said in answer.text, answer.text
    # What may have been done must not be repeated unseen.
    assert ("Retry-After" in answer.headers) == (when != "after")
