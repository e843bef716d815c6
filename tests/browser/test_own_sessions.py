"""One's own sessions at the console: seen, told of, ended; and what counts as use."""

import re
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import delete, select, update

from services.ops.console.web.mount import SESSION
from services.ops.users import users
from shared.bus.contract.events import encode
from shared.db.models import OpsSession
from shared.ids import new_id
from shared.web.arrivals import ENDED
from shared.web.tokens import form_token, hashed
from tests.browser.arrange import a_dead_letter, audited, faults_of
from tests.browser.conftest import PASSWORD, sign_in
from tests.integration.arrange import PATIENCE, order_created, until


@pytest.fixture(scope="module")
def services():
    return {"ops", "audit", "relay"}


def signed_in_anew(browser, running, name):
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    sign_in(page, running, name)
    return page


def test_a_second_sign_in_is_told_to_both_and_ended_by_either(browser, running):
    with running.session() as session, session.begin():
        users.put(session, "zoe", "watch", PASSWORD)
    first = signed_in_anew(browser, running, "zoe")
    expect(first.locator(".note")).to_have_count(0)
    second = signed_in_anew(browser, running, "zoe")
    expect(second.locator(".note")).to_contain_text(
        "You have 1 other session, the newest from 127."
    )
    first.goto("/kyc")
    expect(first.locator(".note")).to_contain_text(
        "You have signed in from 127.0.0.1 with Chrome too"
    )
    third = signed_in_anew(browser, running, "zoe")

    third.get_by_role("link", name="zoe").click()
    rows = third.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("this one")
    for words in ("Chrome", "127.0.0.1"):
        expect(rows.nth(1)).to_contain_text(words)
    assert faults_of(third, "/sessions", None) == []
    rows.nth(1).get_by_role("button").click()
    expect(third.get_by_role("heading", level=1)).to_contain_text("from 127.0.0.1 with Chrome?")
    third.get_by_role("button", name="End this session").click()
    expect(rows).to_have_count(2)
    second.goto("/")
    expect(second).to_have_url(re.compile("/sign-in"))
    third.get_by_role("button", name="End all others").click()
    third.get_by_role("button", name="End 1 other session").click()
    expect(rows).to_have_count(1)
    first.goto("/")
    expect(first).to_have_url(re.compile("/sign-in"))
    until(lambda: audited(running, "ops.sessions_ended", "zoe"), "it is audited")
    for page in (first, second, third):
        page.context.close()


def test_nobody_ends_anothers(browser, running):
    ada, wole = (signed_in_anew(browser, running, name) for name in ("ada", "wole"))
    wole.goto("/sessions")
    with running.session() as session:
        theirs = session.scalar(
            select(OpsSession.id)
            .where(OpsSession.user_id == users.find(session, "ada").id)
            .order_by(OpsSession.created_at.desc())
        )
    assert str(theirs) not in wole.content()
    (cookie,) = [c for c in wole.context.cookies() if c["name"] == SESSION]
    form = {"form_token": form_token(cookie["value"])}
    for sure in ({}, {"sure": "yes"}):
        url = f"{running.url}/sessions/{theirs}/end"
        httpx.post(url, data=form | sure, cookies={SESSION: cookie["value"]}, timeout=PATIENCE)
    ada.goto("/kyc")
    expect(ada).to_have_url(f"{running.url}/kyc")
    for page in (ada, wole):
        page.context.close()


def test_a_page_that_is_left_open_is_no_use(browser, running):
    page = signed_in_anew(browser, running, "wole")
    (cookie,) = [c for c in page.context.cookies() if c["name"] == SESSION]
    page.context.close()
    then = datetime.now(UTC) - timedelta(minutes=20)
    with running.session() as session, session.begin():
        session.execute(update(OpsSession).values(seen_at=then))

    def used():
        with running.session() as session:
            return {at for (at,) in session.execute(select(OpsSession.seen_at)) if at != then}

    with httpx.Client(
        base_url=running.url, cookies={SESSION: cookie["value"]}, timeout=PATIENCE
    ) as client:
        with client.stream("GET", "/live/overview") as stream:
            assert stream.status_code == 200
            assert next(stream.iter_lines()).startswith("data:")
        assert client.get(f"/jobs/{new_id()}/progress").status_code == 404
        outcome = f"/kyc/outcomes/{new_id()}?account={new_id()}&look=1"
        assert client.get(outcome).status_code == 200
        assert used() == set()
        assert client.get("/").status_code == 200
        assert len(used()) == 1


@pytest.mark.parametrize("when", ["asked", "answered"])
def test_what_was_typed_is_there_after_a_session_that_ended(browser, running, when):
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    sign_in(page, running)
    order = order_created()
    id_ = a_dead_letter(running, order, body=b"{}")
    letter, body = f"/dead/orders.intake/letter?id={id_}", encode(order).decode()
    kept = "sessionStorage.length"
    page.goto(letter)
    page.get_by_label("Body").fill(body)
    seen = page.locator("form:has(textarea) input[name=death]")
    replay = page.get_by_role("button", name="Replay with this body")
    if when == "answered":
        replay.click()
    else:
        # As if the letter had died once more since.
        seen.evaluate("one => one.value = 'before'")
    end_the_session(context, running)
    page.get_by_role("button", name=re.compile("Replay (with )?this")).click()
    expect(page.get_by_role("status")).to_have_text(ENDED)
    sign_in_here(page)
    expect(page).to_have_url(f"{running.url}{letter}")
    expect(page.get_by_label("Body")).to_have_value(body)
    # Nor is what somebody has changed meanwhile passed over.
    assert (seen.input_value() == "before") == (when == "asked")
    assert page.evaluate(kept) == 0
    # Once, and for nobody else.
    page.reload()
    expect(page.get_by_label("Body")).not_to_have_value(body)
    page.get_by_label("Body").fill(body)
    end_the_session(context, running)
    replay.click()
    expect(page.get_by_role("status")).to_have_text(ENDED)
    assert page.evaluate(kept) == 1
    sign_in_here(page, "wole")
    expect(page).to_have_url(f"{running.url}{letter}")
    assert page.evaluate(kept) == 0
    context.close()


def test_what_was_typed_is_there_after_an_error_and_gone_with_who_signs_out(page, running):
    id_ = a_dead_letter(running, order_created(), body=b"{}")
    letter = f"/dead/orders.intake/letter?id={id_}"
    page.goto(letter)
    page.get_by_label("Body").fill("{ }")
    type_ = page.get_by_label("Type", exact=True)
    chosen = type_.locator("option:not([selected])").first.text_content()
    type_.select_option(chosen)
    action = re.compile("/edit$")
    away = page.request.get("/nowhere").text()
    page.route(action, lambda route: route.fulfill(status=503, content_type="text/html", body=away))
    page.get_by_role("button", name="Replay with this body").click()
    expect(page.get_by_text("404")).to_be_visible()
    page.goto(letter)
    expect(page.get_by_label("Body")).to_have_value("{ }")
    # Else the first option is sent: `revoke all` in place of the chosen secret.
    expect(type_).to_have_value(chosen)
    page.get_by_role("button", name="Replay with this body").click()
    expect(page.get_by_text("404")).to_be_visible()
    page.goto("/dead")
    page.goto(letter)
    expect(page.get_by_label("Body")).to_have_value("{ }")
    page.get_by_role("button", name="Replay with this body").click()
    expect(page.get_by_text("404")).to_be_visible()
    page.goto("/dead")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in"))
    assert page.evaluate("sessionStorage.length") == 0


LOST = """(more) => sessionStorage.setItem("typed", JSON.stringify({
  who: document.body.dataset.who, back: "/dead", action: "/gone", isLost: true, at: Date.now(),
  typed: [["reason", "leaked"]], chosen: [["which", "b"]], seen: [], ticked: [], ...more }))"""


@pytest.mark.parametrize(("hours", "is_shown"), [(0, True), (2, False)])
def test_what_cannot_be_put_back_is_shown_once_and_put_into_no_later_form(
    browser, running, hours, is_shown
):
    page = signed_in_anew(browser, running, "ada")
    who, script = page.evaluate("[document.body.dataset.who, document.scripts[0].src]")
    page.goto(script)  # where nothing puts it back before
    page.evaluate(LOST, {"who": who, "at": time.time() * 1000 - hours * 3_600_000})
    page.goto("/dead")
    shown = page.get_by_text("leaked")
    expect(shown).to_have_count(int(is_shown))
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(shown).to_have_count(0)
    page.context.close()


@pytest.mark.parametrize(("there", "shown"), [("b", ["b", "leaked"]), ("c", ["", ""])])
def test_an_option_that_is_gone_is_not_replaced_by_the_first_one(browser, running, there, shown):
    page = signed_in_anew(browser, running, "ada")
    # In one step: the page swaps parts of itself now and then, and would put it back before.
    found = page.evaluate(
        """(there) => {
      ("""
        + LOST
        + """)({ action: "/x", back: "/kyc?q=1" });
      document.querySelector("main").innerHTML = `<form action="/x"><input name="back"
        value="/kyc?q=1"><select id="which" name="which"><option value="">all</option><option
        value="${there}">one</option></select><input id="reason" name="reason"></form>`;
      document.dispatchEvent(new Event("htmx:after:swap"));
      return [document.getElementById("which").value, document.getElementById("reason").value];
    }""",
        there,
    )
    assert found == shown
    page.context.close()


def test_what_was_ticked_is_there_after_an_error(browser, running):
    page = signed_in_anew(browser, running, "ada")
    ids = [a_dead_letter(running, order_created(), body=b"{}") for _ in range(3)]
    listed = "/dead/orders.intake"
    page.goto(listed)
    boxes = [page.get_by_label(f"Tick {id_}") for id_ in ids]
    for box in boxes[:2]:
        box.check()
    away = page.request.get("/nowhere").text()
    action = re.compile("/replay$")
    page.route(action, lambda route: route.fulfill(status=503, content_type="text/html", body=away))
    page.get_by_role("button", name="Replay ticked").click()
    expect(page.get_by_text("404")).to_be_visible()
    page.goto(listed)
    assert [box.is_checked() for box in boxes] == [True, True, False]
    page.reload()
    assert [box.is_checked() for box in boxes] == [False, False, False]
    page.context.close()


def test_what_was_ticked_comes_back_in_the_form_it_was_ticked_in(browser, running):
    """Of several with one page; also where they come as a piece of it."""
    page = signed_in_anew(browser, running, "ada")
    page.goto("/dead")
    ticked = page.evaluate("""() => {
      const box = (at) => `<form action="${at}"><input name="back" value="/dead"><input name="death"
        value="then"><input type="checkbox" name="is_test" value="yes"></form>`;
      document.querySelector("main").innerHTML = box("/shops/a") + box("/shops/b");
      sessionStorage.setItem("typed", JSON.stringify({
        who: document.body.dataset.who, back: "/dead", action: "/shops/b", isLost: true,
        typed: [], seen: [["death", "before"]], ticked: [["is_test", "yes"]]
      }));
      document.dispatchEvent(new Event("htmx:after:swap"));
      return [...document.forms].slice(-2).map((form) =>
        [form.elements.is_test.checked, form.elements.death.value]);
    }""")
    assert ticked == [[False, "then"], [True, "before"]]
    page.context.close()


def end_the_session(context, running):
    (token,) = [one["value"] for one in context.cookies() if one["name"] == SESSION]
    with running.session() as session, session.begin():
        session.execute(delete(OpsSession).where(OpsSession.token_hash == hashed(token)))


def sign_in_here(page, name="ada"):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
