"""What a stranger sends as a form costs the portal and the console next to nothing."""

import asyncio
import threading

import falcon.asgi
import pytest
from falcon.testing import TestClient, create_scope

from services.ops.console.app import PAGES as CONSOLE_PAGES
from services.ops.console.app import Console
from services.ops.console.web import mount as console
from services.ops.console.web import page as console_page
from services.portal.app import PAGES as PORTAL_PAGES
from services.portal.web import mount as portal
from services.portal.web import page as portal_page
from services.portal.web.api import Api
from services.portal.web.rendering import render
from shared.http import bodies
from shared.web import forms
from shared.web.answers import add_error_handlers
from shared.web.results import Redirect
from shared.web.tokens import form_token
from tests.integration.arrange import PATIENCE, lanes

TOKEN = "a stranger's own"
SITES = {"portal": PORTAL_PAGES, "console": CONSOLE_PAGES}
FORM = {"content-type": "application/x-www-form-urlencoded"}
LARGE = "&" + "x=%41" * 50_000


def console_site(config, app, threads):
    page = console_page.Page
    done = lambda *_: Redirect("/done")  # noqa: E731
    pages = [page("POST", "/anybody", "nobody", done), page("POST", "/own", "view", done)]
    pages.append(page("GET", "/kyc", "view", done))
    pages.append(page("POST", "/large", "view", done, max_form_bytes=forms.MAX_LARGE_BYTES))
    console.mount(app, pages, Console(config).system, threads)


def portal_site(config, app, threads):
    page = portal_page.Page
    done = lambda _: Redirect("/done")  # noqa: E731
    pages = [page("POST", "/anybody", "nobody", done), page("POST", "/own", "business", done)]
    pages.append(page("GET", "/kyc", "business", done))
    pages.append(page("POST", "/large", "business", done, max_form_bytes=forms.MAX_LARGE_BYTES))
    portal.mount(app, pages, config, Api(config), threads)


@pytest.fixture(params=[console_site, portal_site])
def site(request, settings):
    app = falcon.asgi.App()
    add_error_handlers(app, render)
    with lanes() as threads:
        request.param(settings, app, threads)
        yield TestClient(app), console if request.param is console_site else portal


@pytest.fixture
def signed_in(site, monkeypatch):
    """Whoever has `TOKEN` is: a form of theirs is refused, or kept, before more is asked."""
    of = site[1]
    theirs = of._Console if of is console else of._Portal
    monkeypatch.setattr(theirs, "signed_in", lambda *_: "ada")
    return {of.SESSION: TOKEN}


@pytest.fixture
def read_in(monkeypatch):
    """In which threads a form was read."""
    found = []
    parse = forms.parse_qs

    def parse_qs(*given, **named):
        found.append(threading.current_thread())
        return parse(*given, **named)

    monkeypatch.setattr(forms, "parse_qs", parse_qs)
    return found


@pytest.mark.parametrize("path", ["/anybody", "/own"])
def test_without_a_cookie_it_is_not_read(site, read_in, path):
    answer = site[0].simulate_post(path, body="form_token=x", headers=FORM)
    assert answer.status_code == 403
    assert read_in == []


def test_who_says_to_be_signed_in_and_is_not_has_no_large_one_read(site, read_in):
    """A small one says to which page of ours to come back to."""
    browser, of = site
    body, cookies = f"form_token={form_token(TOKEN)}&back=/kyc", {of.SESSION: TOKEN}
    for given, back in ((body + LARGE, ""), (body, "next=%2Fkyc")):
        answer = browser.simulate_post("/own", body=given, headers=FORM, cookies=cookies)
        assert answer.status_code == 303
        assert "/sign-in" in answer.headers["location"]
        assert back in answer.headers["location"]
        assert bool(read_in) is bool(back)
    assert threading.main_thread() not in read_in


def test_what_anybody_may_send_is_small_and_read_in_a_thread(site, read_in):
    browser, of = site
    body, cookies = f"form_token={form_token(TOKEN)}", {of.FORM: TOKEN}
    answer = browser.simulate_post("/anybody", body=body + LARGE, headers=FORM, cookies=cookies)
    assert answer.status_code == 413
    assert read_in == []
    answer = browser.simulate_post("/anybody", body=body, headers=FORM, cookies=cookies)
    assert answer.headers["location"] == "/done"
    assert read_in
    assert threading.main_thread() not in read_in


def test_a_form_of_somebody_who_is_signed_in_is_as_large_as_its_page_says(site, signed_in):
    """A file of orders and a pasted request need more than all others."""
    body = f"form_token={form_token(TOKEN)}&x={'y' * forms.MAX_FORM_BYTES}"
    for path, is_read in (("/own", False), ("/large", True)):
        answer = site[0].simulate_post(path, body=body, headers=FORM, cookies=signed_in)
        assert (answer.status_code != 413) is is_read


def test_it_counts_as_theirs_until_it_is_answered(site, signed_in, monkeypatch):
    """It lies here while it waits for a thread."""
    browser, of = site
    kept = []

    async def answer(*_):
        kept.append(dict(bodies.SIGNED_IN.held_by))
        return Redirect("/done"), ""

    monkeypatch.setattr(of._Console if of is console else of._Portal, "answer", answer)
    body = f"form_token={form_token(TOKEN)}"
    browser.simulate_post("/own", body=body, headers=FORM, cookies=signed_in)
    assert kept == [{"ada": len(body)}]
    assert bodies.SIGNED_IN.held == 0


def test_a_made_up_cookie_has_no_large_form_kept(site):
    """The session is looked up first: what is held back of such a form is awaited by nobody."""
    browser, of = site
    headers = [*FORM.items(), ("content-length", "1000000"), ("cookie", f"{of.SESSION}=made-up")]
    status = asyncio.run(held_back(browser.app, headers))
    assert status == 303


async def held_back(app, headers):
    """What a form is answered of which the last does not come."""
    first = [{"type": "http.request", "body": b"x=" + b"y" * 60_000, "more_body": True}]
    found = asyncio.get_running_loop().create_future()

    async def receive():
        return first.pop() if first else await asyncio.Event().wait()

    async def send(event):
        if event["type"] == "http.response.start":
            found.set_result(event["status"])

    asked = asyncio.create_task(
        app(create_scope(method="POST", path="/own", headers=headers), receive, send)
    )
    try:
        done, _ = await asyncio.wait([found], timeout=PATIENCE)
    finally:
        asked.cancel()
    assert done, "its last byte is awaited"
    return found.result()


@pytest.mark.parametrize("of", SITES)
def test_nothing_is_changed_by_a_form_of_another_site(of, settings):
    """Every page that takes a form; nor by one that does not have the browser's token."""
    app, site = falcon.asgi.App(), portal if of == "portal" else console
    add_error_handlers(app, render)
    changes = [page for page in SITES[of] if page.method == "POST"]
    with lanes() as threads:
        if of == "portal":
            portal.mount(app, changes, settings, Api(settings), threads)
        else:
            console.mount(app, changes, Console(settings).system, threads)
        browser = TestClient(app)
        for page in changes:
            path = page.path.replace("{", "").replace("}", "")
            sent = {"body": f"form_token={form_token(TOKEN)}", "cookies": {site.FORM: TOKEN}}
            for elsewhere in ("cross-site", "same-site"):
                from_there = FORM | {"Sec-Fetch-Site": elsewhere}
                assert browser.simulate_post(path, headers=from_there, **sent).status_code == 403
            if page.needs == "nobody":
                sent["body"] = f"form_token={form_token('another')}"
                assert browser.simulate_post(path, headers=FORM, **sent).status_code == 403
    assert len(changes) > 20
