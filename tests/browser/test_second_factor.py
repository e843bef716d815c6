"""The second factor at the console: from setting it up to losing it."""

import re

import httpx
import pyotp
import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from services.ops.console.app import PAGES
from services.ops.console.web.mount import FORM, SESSION
from services.ops.users import second_factor, users
from shared.web.tokens import form_token
from tests.browser.arrange import audited, faults_of
from tests.browser.conftest import PASSWORD, sign_in
from tests.browser.test_rights import path_of
from tests.integration.arrange import PATIENCE, until
from tests.integration.ops.console.running import running_console


@pytest.fixture(scope="module")
def services():
    return {"ops", "audit", "relay"}


@pytest.fixture(scope="module")
def variables():
    return {"ACCOUNT_ATTEMPTS_PER_MINUTE": "30"}


def a_user(running, name, role="watch"):
    with running.session() as session, session.begin():
        users.put(session, name, role, PASSWORD)
    return name


def time_passes(running):
    """Codes that were taken are those of long ago."""
    with running.session() as session, session.begin():
        session.execute(text("UPDATE ops_second_factors SET last_step = 0"))


def give_code(page, code):
    page.get_by_label("Code of your authenticator app").fill(code)
    page.get_by_role("button", name="Sign in").click()


def give_password(page, running, name):
    page.goto(f"{running.url}/sign-in?next=/audit")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/sign-in/code"))


def test_from_setting_it_up_to_losing_the_telephone(browser, running):
    name = a_user(running, "zoe")
    other = browser.new_context(base_url=running.url)
    elsewhere = other.new_page()
    sign_in(elsewhere, running, name)
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    sign_in(page, running, name)
    page.get_by_role("link", name=name).click()
    page.get_by_role("link", name="Second factor").click()
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Set it up").click()
    app = pyotp.TOTP(page.locator("[data-secret]").text_content())
    expect(page.locator("main")).to_contain_text(f"otpauth://totp/Order%20Fellow:{name}?secret=")
    expect(page.locator(".qr svg path")).to_have_count(2)
    assert faults_of(page, "/second-factor", None) == []
    page.get_by_label("Code", exact=True).fill("000000")
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    page.get_by_label("Code", exact=True).fill(app.now())
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Recovery codes")
    listed = page.locator(".codes li")
    expect(listed).to_have_count(10)
    codes = listed.all_text_contents()
    assert faults_of(page, "/second-factor", None) == []
    # Who was signed in without it is not any more.
    elsewhere.goto("/")
    expect(elsewhere).to_have_url(re.compile("/sign-in"))
    other.close()
    page.get_by_role("button", name="Sign out").click()

    give_password(page, running, name)
    (half,) = [c for c in context.cookies() if c["name"] == SESSION]
    page.goto("/audit")
    expect(page).to_have_url(re.compile("/sign-in"))
    assert faults_of(page, "/sign-in/code?next=/audit", None) == []
    give_code(page, "000000")
    expect(page.get_by_role("alert")).to_contain_text("The code is wrong, or was used already")
    time_passes(running)
    code = app.now()
    give_code(page, code)
    expect(page).to_have_url(f"{running.url}/audit")
    # Another session than the one that waited.
    (whole,) = [c for c in context.cookies() if c["name"] == SESSION]
    assert whole["value"] != half["value"]
    page.get_by_role("button", name="Sign out").click()
    give_password(page, running, name)
    give_code(page, code)
    expect(page.get_by_role("alert")).to_contain_text("was used already")
    give_code(page, codes[3])
    expect(page).to_have_url(f"{running.url}/audit")
    page.goto("/second-factor")
    expect(page.locator("main")).to_contain_text("9 recovery codes are left")

    # New codes take a code, and are asked about.
    time_passes(running)
    page.get_by_label("Code, for new recovery codes").fill(app.now())
    page.get_by_role("button", name="New recovery codes …").click()
    page.get_by_role("button", name="Make new recovery codes").click()
    expect(listed).to_have_count(10)
    newer = listed.all_text_contents()
    assert not set(newer) & set(codes)
    page.goto("/second-factor")
    page.get_by_label("Code, for another device").fill("000000")
    page.get_by_role("button", name="Set up another device").click()
    expect(page.get_by_role("alert")).to_contain_text("The code is wrong")
    expect(page.locator("[data-secret]")).to_have_count(0)
    page.get_by_label("Code, for another device").fill(newer[0])
    page.get_by_role("button", name="Set up another device").click()
    expect(page.locator("[data-secret]")).not_to_have_text(app.secret)
    context.close()
    until(lambda: audited(running, "ops.second_factor_changed", name), "it is audited")
    until(lambda: audited(running, "ops.sign_in_failed", name), "so is a wrong code")


@pytest.fixture
def half(running):
    """A client of somebody whose password was right, and whose code is awaited."""
    name = a_user(running, "bola", "act")
    with running.session() as session, session.begin():
        user = users.verify(session, name, PASSWORD)
        second_factor.offer(session, user.id, "a session")
        offered = second_factor.offered(session, user.id, name, "a session")
        assert second_factor.confirm(
            session, user.id, pyotp.TOTP(offered.secret).now(), "a session"
        )
    with httpx.Client(base_url=running.url, timeout=PATIENCE) as client:
        client.get("/sign-in")
        form = {"name": name, "password": PASSWORD, "form_token": form_token(client.cookies[FORM])}
        answer = client.post("/sign-in", data=form)
        assert answer.headers["Location"].startswith("/sign-in/code")
        yield client


def test_a_password_alone_leads_to_no_page(half):
    assert half.get("/live/overview").status_code == 403
    for page in PAGES:
        if page.needs == "nobody":
            continue
        if page.method == "GET":
            answer = half.get(path_of(page))
        else:
            form = {"form_token": form_token(half.cookies[SESSION]), "sure": "yes"}
            answer = half.post(path_of(page), data=form)
        if page.asks_by_itself:
            assert answer.status_code == 403, page.path
            continue
        assert answer.status_code == 303, page.path
        assert answer.headers["Location"].startswith("/sign-in"), page.path


def test_guessing_a_code_is_slowed_down(half):
    form = {"code": "000000", "form_token": form_token(half.cookies[SESSION])}
    answers = [half.post("/sign-in/code", data=form).status_code]
    while answers[-1] == 401 and len(answers) < 100:
        answers.append(half.post("/sign-in/code", data=form).status_code)
    assert answers[-1] == 429
    assert set(answers) == {401, 429}


def test_where_it_is_required_there_is_nothing_else_before_it(
    module_amqp_url, module_database_url, running, tmp_path
):
    a_user(running, "ngozi", "act")
    with (
        running_console(
            tmp_path, module_amqp_url, module_database_url, OPS_SECOND_FACTOR="required"
        ) as (url, _),
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
    ):
        client.get("/sign-in")
        form = {"form_token": form_token(client.cookies[FORM])}
        client.post("/sign-in", data=form | {"name": "ngozi", "password": PASSWORD})
        form = {"form_token": form_token(client.cookies[SESSION])}
        assert client.get("/live/overview").status_code == 403
        for page in PAGES:
            if page.before_second_factor:
                continue
            answer = (
                client.get(path_of(page))
                if page.method == "GET"
                else client.post(path_of(page), data=form | {"sure": "yes"})
            )
            assert answer.status_code == 303, page.path
            assert answer.headers["Location"] == "/second-factor", page.path
        # A browser that was left signed in is not enough to make an account one's own.
        for guess in ({}, {"password": "another long one"}):
            assert client.post("/second-factor/offer", data=form | guess).status_code == 400
            assert "data-secret" not in client.get("/second-factor").text
        form |= {"password": PASSWORD}
        assert client.post("/second-factor/offer", data=form).status_code == 303
        shown = client.get("/second-factor").text
        assert "Everybody needs one here" in shown
        secret = re.search(r"data-secret>(\w+)<", shown)[1]
        code = {"code": pyotp.TOTP(secret).now()}
        guess = {"password": "another long one"}
        answer = client.post("/second-factor/confirm", data=form | code | guess)
        assert (answer.status_code, "The password is wrong." in answer.text) == (400, True)
        # Nor is the password, which somebody may have found out.
        for guess in ({}, {"enrolment": "aaaaaa-aaaaaa-aaaaaa-aaaaaa"}):
            answer = client.post("/second-factor/confirm", data=form | code | guess)
            assert (answer.status_code, "enrolment code is wrong" in answer.text) == (400, True)
        assert client.get("/").status_code == 303
        with running.session() as session, session.begin():
            form |= {"enrolment": second_factor.make_enrolment_code(session, "ngozi")}
        # A wrong code of the app does not use it up.
        wrong = client.post("/second-factor/confirm", data=form | {"code": "000000"})
        assert (wrong.status_code, "The code is wrong" in wrong.text) == (400, True)
        assert client.post("/second-factor/confirm", data=form | code).status_code == 200
        assert client.get("/").status_code == 200
        assert client.get("/kyc").status_code == 200


def test_what_is_there_before_it_is_its_own_page_and_the_way_in_and_out():
    assert {page.path for page in PAGES if page.before_second_factor} == {
        "/sign-in",
        "/sign-in/code",
        "/sign-out",
        "/second-factor",
        "/second-factor/offer",
        "/second-factor/confirm",
    }
