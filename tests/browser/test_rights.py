"""Who may do what, route by route, from the table of pages: a new page is covered by itself."""

import re
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from services.ops.console.app import PAGES
from services.ops.console.web.mount import FORM, SESSION
from services.ops.users import users
from services.ops.users.rights import Right
from shared.web.tokens import form_token
from tests.browser.conftest import PASSWORD
from tests.integration.arrange import PATIENCE, get, until

ANY = "00000000-0000-7000-8000-000000000000"
QUEUE = "orders.intake"
GUESSES = 100  # enough, however slow each is


def path_of(page) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: QUEUE if m[1] == "queue" else ANY, page.path)


def named(page) -> str:
    return f"{page.method} {page.path}"


ACTING = [page for page in PAGES if isinstance(page.needs, Right)]
CLOSED = [page for page in PAGES if page.needs != "nobody"]


@pytest.fixture(scope="module")
def services():
    return {"ops"}


@pytest.fixture(scope="module")
def client(running):
    with httpx.Client(base_url=running.url, timeout=PATIENCE) as opened:
        yield opened


@contextmanager
def session_of(client, name):
    """A client of its own, signed in."""
    with httpx.Client(base_url=client.base_url, timeout=PATIENCE) as opened:
        opened.get("/sign-in")
        token = form_token(opened.cookies[FORM])
        form = {"name": name, "password": PASSWORD, "form_token": token}
        answer = opened.post("/sign-in", data=form)
        assert answer.status_code == 303, answer.text
        yield opened


@pytest.fixture(scope="module")
def watcher(client):
    with session_of(client, "wole") as opened:
        yield opened


@pytest.fixture(scope="module")
def actor(client):
    with session_of(client, "ada") as opened:
        yield opened


def send(client, page, token=""):
    given = token or form_token(client.cookies.get(SESSION, "none"))
    data = {"form_token": given, "decision": "approve", "all": "yes", "why": "x"}
    if page.method == "GET":
        return client.get(path_of(page))
    return client.post(path_of(page), data=data)


def test_what_changes_something_asks_for_somebody_who_may_act():
    open_to_watchers = {page.path for page in PAGES if page.method == "POST" and page not in ACTING}
    # What is their own, what changes nothing, and who has seen a trouble.
    assert open_to_watchers == {
        "/dead/{queue}/rehearse",
        "/troubles/{trouble_id}/acknowledge",
        "/sign-in",
        "/sign-in/code",
        "/sign-out",
        "/second-factor/offer",
        "/second-factor/confirm",
        "/second-factor/codes",
        "/sessions/others/end",
        "/sessions/{session_id}/end",
    }


@pytest.mark.parametrize("page", ACTING, ids=named)
def test_a_watcher_cannot_act(watcher, page):
    answer = send(watcher, page)
    assert answer.status_code == 403
    assert f"This needs the right {page.needs}, which you do not have." in answer.text


@pytest.fixture(scope="module")
def lacking(client, running):
    """By right: a client of somebody who has all others."""
    with ExitStack() as stack:
        found = {}
        for right in Right:
            with running.session() as session, session.begin():
                users.put(session, f"no.{right}", ",".join({*Right} - {right}), PASSWORD)
            found[right] = stack.enter_context(session_of(client, f"no.{right}"))
        yield found


@pytest.mark.parametrize("page", ACTING, ids=named)
def test_each_page_needs_its_own_right_and_no_other(lacking, page):
    for right, opened in lacking.items():
        answer = send(opened, page)
        assert (answer.status_code == 403) is (right == page.needs), (right, answer.text)


def test_what_is_in_the_clear_is_so_for_a_right():
    """Who may do something with a form is shown what they do it to."""
    for page in PAGES:
        assert not page.plain or page.needs != "nobody", page.path
        if isinstance(page.needs, Right) and page.plain:
            assert page.needs in page.plain, page.path


@pytest.mark.parametrize("page", CLOSED, ids=named)
def test_who_is_signed_out_gets_the_sign_in_page_and_nothing_else(running, page):
    """A piece that a page asks for by itself is refused: the form would stand amid the page."""
    with httpx.Client(base_url=running.url, timeout=PATIENCE) as stranger:
        answer = send(stranger, page)
        if page.method == "GET" and not page.asks_by_itself:
            assert answer.status_code == 303
            assert answer.headers["Location"].startswith("/sign-in")
            assert answer.content == b""
        else:
            assert answer.status_code == 403
        stranger.get("/sign-in")
        answer = send(stranger, page, token=form_token(stranger.cookies[FORM]))
        if page.asks_by_itself:
            assert answer.status_code == 403
            return
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/sign-in")


@pytest.mark.parametrize("page", [p for p in PAGES if p.method == "POST"], ids=named)
def test_a_form_of_another_site_does_nothing(actor, page):
    for headers, token in (
        ({}, "0" * 64),
        ({"Sec-Fetch-Site": "cross-site"}, form_token(actor.cookies[SESSION])),
    ):
        answer = actor.post(path_of(page), data={"form_token": token}, headers=headers)
        assert answer.status_code == 403


def test_the_live_figures_are_for_those_who_are_signed_in(running):
    answer = get(f"{running.url}/live/overview")
    assert answer.status_code == 403
    assert "orders.intake" not in answer.text


@pytest.mark.parametrize("page", [p for p in PAGES if p.method == "GET"], ids=named)
def test_every_answer_forbids_what_is_inline_or_from_elsewhere(actor, page):
    answer = send(actor, page)
    assert answer.status_code < 500
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert " style=" not in answer.text
    assert not re.search(r"<script(?![^>]* src=\"/static/)|<style| on\w+=|https?://", answer.text)


@pytest.mark.parametrize("page", [p for p in PAGES if p.method == "GET"], ids=named)
@pytest.mark.parametrize("value", ["\0", "<i>9'\u0663%"])
def test_nothing_that_is_asked_for_breaks_a_page(actor, page, value):
    names = ("q", "id", "reason", "age", "start", "status", "before", "since", "type", "next")
    answer = actor.get(path_of(page), params=dict.fromkeys(names, value))
    assert answer.status_code < 500
    assert "<i>" not in answer.text


def test_signing_in_leads_nowhere_else(client):
    with session_of(client, "ada") as opened:
        for wanted in ("https://evil.example/", "//evil.example", "/\\evil.example", "x"):
            form = {"name": "ada", "password": PASSWORD, "next": wanted}
            form["form_token"] = form_token(opened.cookies[SESSION])
            assert opened.post("/sign-in", data=form).headers["Location"] == "/"


def test_without_the_database_those_who_were_signed_in_see_that_it_is_away(watcher, running):
    assert watcher.get("/").status_code == 200
    running.books.cut()
    try:
        until(lambda: "The database does not answer" in watcher.get("/").text, "it is said")
        assert watcher.get("/").status_code == 200
        assert watcher.get("/kyc").status_code == 503
        assert get(f"{running.url}/").status_code in (303, 503)
        stranger = get(f"{running.url}/", cookies={SESSION: "x" * 43})
        assert stranger.status_code == 503
        assert "orders.intake" not in stranger.text
    finally:
        running.books.open()
    until(lambda: watcher.get("/kyc").status_code == 200, "it is back")


def test_guessing_a_password_is_slowed_down(client):
    client.get("/sign-in")
    form = {"name": "zoe", "password": "guess", "form_token": form_token(client.cookies[FORM])}
    # Ten a minute: on a slow machine some are allowed again while one guesses.
    answers = [client.post("/sign-in", data=form).status_code]
    while answers[-1] == 401 and len(answers) < GUESSES:
        answers.append(client.post("/sign-in", data=form).status_code)
    assert len(answers) > 10
    assert answers[-1] == 429


def test_a_session_ends_with_a_new_role(client, running):
    with session_of(client, "wole") as opened:
        assert opened.get("/").status_code == 200
        with running.session() as session, session.begin():
            users.put(session, "wole", "watch", None)
        until(lambda: opened.get("/").status_code == 303, "signed out")


def test_an_approval_with_the_reason_of_a_rejection_is_refused(actor):
    form = {"decision": "approve", "reason": "No such number.", "sure": "yes"}
    form["form_token"] = form_token(actor.cookies[SESSION])
    answer = actor.post(f"/kyc/{ANY}", data=form)
    assert answer.status_code == 400
    assert "An approval has no reason" in answer.text
    form = {"id": ANY, "why": "Test data.", "form_token": form["form_token"]}
    assert actor.post(f"/dead/{QUEUE}/replay", data=form).status_code == 400
