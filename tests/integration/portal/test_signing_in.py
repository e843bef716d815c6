"""Into the portal and out of it; what it holds, and what a browser is told."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, text, update

from services.portal.pages.sign_in import SAID as SAID_AFTER
from services.portal.web.api import UNAVAILABLE
from shared.db.models import AccountSession, AttemptCount, PendingProof, PortalSession
from shared.ids import new_id
from shared.web.arrivals import ENDED
from tests.integration.arrange import get
from tests.integration.gate import Gate
from tests.integration.portal.conftest import PASSWORD, Stage, running_portal

SAID = "convert_from(body, 'UTF8')"
FAILED = "account.sign_in_failed"


@pytest.fixture(scope="module")
def ingress_settings():
    """Tokens that are over when they are made: every page renews them."""
    return {"TRUSTED_PROXIES": "2", "ACCESS_TOKEN_SECONDS": "20"}


def test_from_nothing_to_the_first_page(stage):
    browser = stage.browser()
    assert "Email address" in browser.get("/")
    browser, email = stage.registered("Blue Kettle <b>Ltd</b>")
    assert "Blue Kettle &lt;b&gt;Ltd&lt;/b&gt;" in browser.page
    assert "<b>Ltd" not in browser.page
    assert "1 of 5 steps" in browser.page
    assert email in browser.page
    browser.send("/sign-out")
    assert "portal_session" not in browser.http.cookies
    assert "Sign in" in browser.get("/")


def test_a_wrong_password_and_a_wrong_code_are_told(stage):
    browser, email = stage.registered()
    browser.send("/sign-out")
    browser.get("/sign-in")
    browser.send("/sign-in", email=email, password="not the password")
    assert browser.status == 401
    assert "The email address or the password is wrong." in browser.page
    browser.get("/password/lost")
    browser.send("/password/lost", email=email)
    browser.send("/password/reset", code="000000", password="another horse battery")
    assert browser.status == 400
    assert "code is wrong" in browser.page
    browser.send("/password/reset", code=stage.api.code_for(email), password="new horse battery")
    browser.send("/sign-in", email=email, password="new horse battery")
    assert "Sign out" in browser.page


def test_who_has_not_proved_the_address_is_led_there(stage):
    browser, email = stage.browser(), "late@kettle.example"
    browser.get("/register")
    browser.send("/register", company_name="Late Ltd", email=email, password=PASSWORD)
    browser.get("/sign-in")
    browser.send("/sign-in", email=email, password=PASSWORD)
    assert "Prove your email address first" in browser.page
    browser.send("/verify", email=email, code=stage.api.code_for(email))
    assert "Your email address is proved" in browser.page


def test_pages_of_a_browser_at_once_renew_its_tokens_one_after_the_other(stage):
    browser, _ = stage.registered()

    def look(_):
        return browser.http.get("/").status_code, browser.http.get("/account").url.path

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(look, range(16))) == {(200, "/account")}
    assert "Sign out" in browser.get("/")
    with stage.api.session() as session:
        reused = text(f"SELECT count(*) FROM outbox WHERE {SAID} LIKE '%refresh_token_reused%'")
        assert session.scalar(reused) == 0


def test_the_api_is_told_whose_request_it_is(stage):
    browser, _ = stage.registered()
    phone = stage.browser(**{"X-Forwarded-For": "203.0.113.7", "User-Agent": "Firefox/140.0"})
    phone.http.cookies.update(browser.http.cookies)
    phone.get("/")
    with stage.api.session() as session:
        assert set(session.scalars(select(AccountSession.network))) == {"127.0.0.1"}
    phone.send("/sign-out")
    phone.get("/sign-in")
    phone.send("/sign-in", email="x@kettle.example", password="wrong")
    with stage.api.session() as session:
        told = session.scalars(
            text(f"SELECT {SAID}::json->>'address' FROM outbox WHERE type = '{FAILED}'")
        ).all()
    assert "203.0.113.7" in told


def test_a_session_that_is_ended_elsewhere_leads_to_the_sign_in(stage):
    browser, _ = stage.registered()
    with stage.api.session() as session, session.begin():
        session.execute(text("UPDATE account_sessions SET ended_at = now() WHERE ended_at IS NULL"))
    browser.get("/")
    assert "Email address" in browser.page
    assert "portal_session" not in browser.http.cookies


def test_what_is_held_cannot_be_read_in_the_database(stage):
    browser, email = stage.registered()
    token = browser.http.cookies["portal_session"]
    with stage.api.session() as session:
        rows = session.scalars(select(PortalSession)).all()
    assert rows
    for row in rows:
        held = bytes(row.token_hash) + bytes(row.sealed)
        assert token.encode() not in held
        assert email.encode() not in held


def test_a_link_from_elsewhere_signs_nobody_out(stage):
    """The browser does not show its cookie then, and it must not be taken from it."""
    answer = get(f"{stage.url}/orders")
    assert answer.status_code == 303
    assert "portal_session" not in answer.headers.get("Set-Cookie", "")


def test_a_new_address_is_shown_at_once(stage):
    browser, email = stage.registered()
    browser.get("/account")
    browser.send("/account/email", email=f"new-{email}", password=PASSWORD)
    code = stage.api.code_for(f"new-{email}")
    browser.send("/account/email/verify", code=code)
    assert "Change your email address?" in browser.page
    assert email in browser.page
    browser.send("/account/email/verify")
    assert "Your email address is changed" in browser.page
    assert f"<dd>new-{email}</dd>" in browser.page
    assert "Sign out" in browser.get("/")


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_a_form_of_another_site_does_nothing(stage, headers):
    browser, _ = stage.registered()
    browser.http.headers.update(headers)
    browser.send("/sign-out")
    assert browser.status == 403
    del browser.http.headers["Sec-Fetch-Site"]
    assert "Sign out" in browser.get("/")


def test_a_form_without_its_token_does_nothing(stage):
    browser, _ = stage.registered()
    answer = browser.http.post("/sign-out", data={"form_token": "0" * 64})
    assert answer.status_code == 403
    assert "Sign out" in browser.get("/")


def test_what_every_answer_carries(stage):
    for path in ("/sign-in", "/nowhere", "/healthz"):
        answer = get(f"{stage.url}{path}")
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"
    page = get(f"{stage.url}/sign-in").text
    assert "<script>" not in page
    assert "style=" not in page


def reused(stage):
    """How many sessions were taken for stolen."""
    with stage.api.session() as session:
        told = text(f"SELECT count(*) FROM outbox WHERE {SAID} LIKE '%refresh_token_reused%'")
        return session.scalar(told)


@pytest.fixture
def forgets(stage):
    """Has what the API answers to a renewal be lost, or not: the portal ends, or its database."""
    gone = ["DROP TRIGGER IF EXISTS forget ON portal_sessions", "DROP FUNCTION IF EXISTS forget"]

    def remember():
        with stage.api.engine.begin() as connection:
            for statement in gone:
                connection.execute(text(statement))

    yield lambda does: forget(stage) if does else remember()
    remember()


def forget(stage):
    with stage.api.engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE EXCEPTION 'gone' USING ERRCODE = '57P01'; END $$"
            )
        )
        connection.execute(
            text(
                "CREATE TRIGGER forget BEFORE UPDATE ON portal_sessions FOR EACH ROW WHEN"
                " (NEW.expires_at <> OLD.expires_at) EXECUTE FUNCTION forget()"
            )
        )


def test_an_answer_that_was_lost_is_asked_for_again_and_ends_no_session(stage, forgets):
    browser, _ = stage.registered()
    forgets(True)
    before = reused(stage)
    with stage.api.session() as session:
        renewed = "SELECT max(renewed_at) FROM account_sessions"
        first = session.scalar(text(renewed))
    time.sleep(1.1)  # tokens end at a whole second
    for _ in range(2):
        browser.get("/")
        assert browser.status == 503
    with stage.api.session() as session:
        assert session.scalar(text(renewed)) > first  # the API has renewed it
    forgets(False)
    assert "Sign out" in browser.get("/")
    assert "Sign out" in browser.get("/account")
    assert reused(stage) == before


def test_a_new_address_and_other_pages_at_once_renew_one_after_the_other(stage):
    browser, email = stage.registered()
    browser.get("/account")
    browser.send("/account/email", email=f"new-{email}", password=PASSWORD)
    browser.send("/account/email/verify", code=stage.api.code_for(f"new-{email}"))
    before, sure = reused(stage), browser.page
    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(browser.http.get, "/account") for _ in range(8)]
        browser.page = sure
        browser.send("/account/email/verify")
        more = [pool.submit(browser.http.get, "/account") for _ in range(4)]
    assert {answer.result().url.path for answer in others + more} == {"/account"}
    assert f"<dd>new-{email}</dd>" in browser.page
    assert reused(stage) == before


def test_an_api_that_hangs_is_said_to_be_away_and_not_the_database(stage, tmp_path):
    """However many pages wait for one renewal, and browsers for theirs."""
    with (
        Gate(stage.api.url) as gate,
        running_portal(tmp_path, stage.api, PORTAL_API_URL=gate.url) as url,
    ):
        there = Stage(url, stage.api, tmp_path / "portal.log")
        browsers = [there.registered()[0] for _ in range(3)]
        gate.stall()
        with ThreadPoolExecutor(16) as pool:
            pages = [
                pool.submit(browser.http.get, "/account") for browser in browsers for _ in range(5)
            ]
        assert {page.result().status_code for page in pages} == {503}
        assert all(UNAVAILABLE in page.result().text for page in pages)
        gate.open()
        for browser in browsers:
            assert "Sign out" in browser.get("/account")


def test_one_signs_out_while_the_api_is_away(stage, tmp_path):
    """On a borrowed machine: when the API is back, the session is not."""
    with (
        Gate(stage.api.url) as gate,
        running_portal(tmp_path, stage.api, PORTAL_API_URL=gate.url) as url,
    ):
        browser, _ = Stage(url, stage.api, tmp_path / "portal.log").registered()
        cookie = browser.http.cookies["portal_session"]
        gate.cut()
        browser.send("/sign-out")
        assert browser.status == 200
        assert "portal_session" not in browser.http.cookies
        gate.open()
        browser.http.cookies.set("portal_session", cookie)
        assert "Email address" in browser.get("/account")


def test_a_browser_that_was_signed_in_gets_in_while_strangers_guess(stage):
    browser, email = stage.registered()
    browser.send("/sign-out")
    guess = {"email": email, "password": "wrong guess"}
    at = {"X-Forwarded-For": "198.19.0.1, 198.19.0.1"}
    assert stage.api.http.post("/users/auth/login/", json=guess, headers=at).status_code == 401
    with stage.api.session() as session:  # and a thousand more
        guessed = update(AttemptCount).where(AttemptCount.count == 1)
        session.execute(guessed.values(count=1_000))
        session.commit()
    elsewhere = {"X-Forwarded-For": "198.19.1.1"}
    stranger = stage.browser(**elsewhere)
    stranger.get("/sign-in")
    stranger.send("/sign-in", email=email, password=PASSWORD)
    assert stranger.status == 429
    browser.http.headers.update(elsewhere)
    browser.get("/sign-in")
    browser.send("/sign-in", email=email, password=PASSWORD)
    assert "Sign out" in browser.page


def test_a_sign_in_of_another_tab_leaves_this_ones_form_good(stage):
    browser, email = stage.registered()
    browser.send("/sign-out")
    browser.get("/sign-in")
    other = browser.page
    browser.send("/sign-in", email=email, password=PASSWORD)
    assert "Sign out" in browser.page
    browser.page = other
    browser.send("/sign-in", email=email, password=PASSWORD)
    assert "Sign out" in browser.page
    browser.get("/account")
    assert "End the session from" not in browser.page  # but this one


@pytest.mark.parametrize("client", ["M" * 199 + " y", "é Firefox/140.0", "é", "a\tb"])
def test_whatever_a_browser_calls_itself_it_is_answered(stage, client):
    browser = stage.browser(**{"User-Agent": client.encode("latin-1")})
    browser.get("/sign-in")
    browser.send("/sign-in", email="nobody@kettle.example", password="no password")
    assert browser.status == 401


LED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/orders?status=a%20b&x=%22%3E", "/orders?status=a%20b&amp;x=%22%3E"),
        ("/orders/%22%3E%3Cb%3E", "/orders/%22%3E%3Cb%3E"),
        ("/verify", "/verify"),
    ],
)
def test_who_is_led_here_from_another_site_is_led_on(stage, path, to):
    """It may be signed in: its browser does not show that yet."""
    answer = get(f"{stage.url}{path}", headers=LED)
    assert answer.status_code == 200
    assert f'content="0; url={to}"' in answer.text
    assert f'href="{to}"' in answer.text
    assert "Set-Cookie" not in answer.headers
    browser, _ = stage.registered()
    assert "Sign out" in browser.http.get("/account", headers=LED).text


def test_a_form_that_came_after_the_session_says_that_nothing_was_done(stage):
    browser, _ = stage.registered()
    browser.get("/kyc")
    with stage.api.session() as session, session.begin():
        session.execute(text("UPDATE account_sessions SET ended_at = now() WHERE ended_at IS NULL"))
    given = dict.fromkeys(
        ("business_registration_number", "business_address", "contact_person_details"), "x"
    )
    browser.http.headers["Referer"] = f"{stage.url}/kyc"
    browser.send("/kyc", **given, sure="yes")
    assert ENDED in browser.page
    assert 'name="next" value="/kyc"' in browser.page


@pytest.mark.parametrize(
    ("action", "fields", "said"),
    [
        ("/account/sessions/end", {}, SAID_AFTER["all"]),
        (
            "/account/password",
            {"current_password": PASSWORD, "password": "another horse 17"},
            SAID_AFTER["password"],
        ),
        ("/account/close", {"password": PASSWORD}, SAID_AFTER["closed"]),
    ],
)
def test_who_is_signed_out_by_what_they_did_is_told_that_it_was_done(stage, action, fields, said):
    browser, _ = stage.registered()
    browser.get("/account")
    browser.send(action, **fields)
    browser.send(action)
    assert browser.texts("h1") == ["Sign in"]
    assert said in browser.page


def test_a_refused_form_keeps_what_was_typed_and_says_first_that_it_is_wrong(stage):
    browser, _ = stage.registered()
    browser.get("/emails")
    browser.send("/emails", language="fr", time_zone="Lagos")
    assert browser.status == 400
    assert 'name="time_zone" list="zones" value="Lagos"' in browser.page
    assert '<option value="fr" lang="fr" selected>' in browser.page
    assert browser.texts("title") == ["Error: Emails · Order Fellow"]
    # The first of a page that asks for the focus gets it (HTML, 6.6.7).
    assert browser.page.index("autofocus") == browser.page.index("autofocus>That is no time zone")
    browser.get("/account")
    browser.send("/account/email", email="new@kettle.example", password="not the password")
    assert 'type="email" value="new@kettle.example"' in browser.page


def test_what_was_done_is_answered_by_a_page_that_can_be_loaded_anew(stage):
    """So that it is not done twice (RFC 9110, 15.4.4)."""
    browser, email = stage.browser(), f"{new_id()}@kettle.example"
    asked = []
    browser.http.event_hooks = {"response": [lambda answer: asked.append(answer.request)]}

    def sends(action, said, **fields):
        browser.send(action, **fields)
        assert ([one.method for one in asked[-2:]], browser.status) == (["POST", "GET"], 200)
        assert said in browser.page
        assert said in browser.get(str(asked[-1].url))

    browser.get("/register")
    sends("/register", "We have mailed a code", company_name="K", email=email, password=PASSWORD)
    sends("/verify/again", "another one is on its way")
    browser.get("/sign-in")
    sends("/sign-in", "Prove your email address first", email=email, password=PASSWORD)
    code = stage.api.code_for(email)
    sends("/verify", "Your email address is proved", email=email, code=code)
    browser.get("/password/lost")
    sends("/password/lost", "a code is on its way", email=email)
    code = stage.api.code_for(email)
    sends("/password/reset", "Your password is set", code=code, password="another horse 17")
    assert f'value="{email}"' in browser.page


def test_a_link_leads_no_code_to_somebody_elses_registration(stage):
    """Whoever reads the emails types a right code there, and it would prove a stranger's."""
    stranger, owner, email = stage.browser(), stage.browser(), f"{new_id()}@kettle.example"
    asked = []
    stranger.http.event_hooks = {"response": [lambda answer: asked.append(answer.request.url)]}
    stranger.get("/register")
    stranger.send("/register", company_name="Mine", email=email, password="a stranger's word 1")
    link = str(asked[-1])
    with stage.api.session() as session:
        (theirs,) = session.scalars(select(PendingProof.id).where(PendingProof.email == email))
    assert str(theirs) not in link
    assert str(theirs) in stranger.page
    owner.get("/register")
    owner.send("/register", company_name="K", email=email, password=PASSWORD)
    for path in (link, f"/verify?email={email}&registration_id={theirs}"):
        assert str(theirs) not in owner.get(path)
    owner.send("/verify", email=email, code=stage.api.code_for(email))
    assert "Password that you registered with" in owner.page


@pytest.mark.parametrize("kind", ["password", "address"])
def test_the_page_for_a_code_can_be_loaded_anew(stage, kind):
    browser, email = stage.registered()
    asked = []
    browser.http.event_hooks = {"response": [lambda answer: asked.append(answer.request)]}
    if kind == "password":
        browser.send("/sign-out")
        browser.get("/password/lost")
        browser.send("/password/lost", email=email)
    else:
        email = f"new-{email}"
        browser.get("/account")
        browser.send("/account/email", email=email, password=PASSWORD)
    code = stage.api.code_for(email)
    assert asked[-1].method == "GET"
    browser.get(str(asked[-1].url))
    assert stage.api.code_for(email) == code
    if kind == "password":
        browser.send("/password/reset", code=code, password="another horse 17")
        assert "Your password is set" in browser.page
    else:
        browser.send("/account/email/verify", code=code)
        browser.send("/account/email/verify")
        assert "Your email address is changed" in browser.page
