"""What a business does in the portal, without a script and by its forms alone."""

import html
import json
import os
import re
import subprocess
import sys

import pytest
from sqlalchemy import select

from services.portal.app import PAGES
from services.portal.pages.first_request import snippets
from shared.db.models import Account, KycApplication
from tests.integration.arrange import PATIENCE, sign, until
from tests.integration.ingress.conftest import ORDER
from tests.integration.portal.conftest import PASSWORD

# What asks nothing: it changes nothing, or it is the one thing that was come for.
ASKS_NOTHING = {"/sign-out", "/secret", "/signature", "/account/email", "/upload/failed"}


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.method == "POST" and p.needs == "business"],
    ids=lambda p: p.path,
)
def test_what_changes_something_asks_first(page):
    assert (page.asks is None) == (page.path in ASKS_NOTHING)


def approve(stage, email):
    """As an operator's decision does; another test goes by the bus."""
    with stage.api.session() as session, session.begin():
        account = session.scalar(select(Account).where(Account.email == email))
        application = session.scalar(
            select(KycApplication).where(KycApplication.account_id == account.id)
        )
        application.status = "approved"
    return account.id


def approved(stage):
    browser, email = stage.registered()
    browser.get("/kyc")
    browser.send(
        "/kyc",
        business_registration_number="RC-1",
        business_address="1 Broad St",
        contact_person_details="Ada",
    )
    assert "Send this application?" in browser.page
    browser.send("/kyc")
    assert "We are looking at your application" in browser.page
    approve(stage, email)
    return browser, email


@pytest.fixture(scope="module")
def browser(stage):
    """Of an approved business, for what leaves it as it was."""
    return approved(stage)[0]


def secret_of(browser):
    browser.get("/secret")
    browser.send("/secret", password=PASSWORD)
    if "data-secret" not in browser.page:
        browser.send("/secret/rotate")
        browser.send("/secret/rotate")
        browser.send("/secret", password=PASSWORD)
    return re.search(r"data-secret>([^<]+)<", browser.page)[1]


def test_from_approval_to_the_first_request(stage):
    browser, _ = approved(stage)
    assert "3 of 5 steps" in browser.get("/")
    secret = secret_of(browser)
    assert secret.startswith("whsk_")
    assert "Waiting for your first request" in browser.get("/first-request")
    code = snippets(stage.api.url)["Python"]
    assert stage.api.url in code
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"WEBHOOK_SECRET": secret},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    until(
        lambda: "was accepted" in browser.get("/first-request/state"), "the request is in the log"
    )
    assert "every 2s" not in browser.page
    browser.get("/requests?outcome=accepted")
    link = re.search(r'href="(/requests/2[^"]+)"', browser.page)[1]
    browser.get(link)
    assert browser.status == 200
    assert "data-receipt>ey" in browser.page
    assert "order.created" in browser.page


def test_the_first_request_is_waited_for_until_one_is_accepted(stage, browser):
    secret = secret_of(browser)

    def sent(body):
        return stage.api.http.post("/webhooks/orders/", content=body, headers=sign(secret, body))

    assert sent(b"{}").status_code == 400
    until(
        lambda: "Waiting for your next" in browser.get("/first-request"),
        "the one before is in the log",
    )
    state = re.search(r'hx-get="(/first-request/state[^"]+)"', browser.page)[1]
    assert sent(b"{}").status_code == 400
    until(lambda: "was refused" in browser.get(state), "the refused one is told")
    assert "every 2s" in browser.page
    assert re.search(r'href="(/first-request\?[^"]+)">Look again', browser.page)
    again = re.search(r'hx-get="(/first-request/state[^"]+)"', browser.page)[1]
    assert again == state
    assert sent(json.dumps(ORDER).encode()).status_code == 201
    until(lambda: "was accepted" in browser.get(again), "the accepted one is told")
    assert "every 2s" not in browser.page
    browser.get("/first-request/state?after=never")
    assert browser.status == 404


def test_a_refused_request_has_cause_and_cure(stage, browser):
    secret, body = secret_of(browser), b'{"customer_details": 1}'
    answer = stage.api.http.post("/webhooks/orders/", content=body, headers=sign(secret, body))
    assert answer.status_code == 400
    until(lambda: "invalid_body" in browser.get("/requests?outcome=refused"), "it is in the log")
    browser.get(re.search(r'href="(/requests/2[^"]+)"', browser.page)[1])
    assert "<dt>Cause</dt>" in browser.page
    assert "<dt>Cure</dt>" in browser.page
    assert "No request matches" in browser.get("/requests?code=invalid_json")
    browser.get("/requests?code=NO%20CODE")
    assert browser.status == 400


def test_the_secret_is_shown_to_who_knows_the_password(stage):
    browser, _ = approved(stage)
    before = secret_of(browser)
    browser.get("/secret")
    assert before not in browser.page
    browser.send("/secret", password="a guess")
    assert browser.status == 403
    assert "The password is wrong." in browser.page
    browser.send("/secret", password=PASSWORD)
    browser.send("/secret/replace")
    assert "stops working in the same moment" in browser.page
    browser.send("/secret/replace")
    assert "no longer works" in browser.page
    after = secret_of(browser)
    assert after != before
    body = b"{}"

    def refused():
        answer = stage.api.http.post("/webhooks/orders/", content=body, headers=sign(before, body))
        return answer.status_code == 401

    until(refused, "the replaced secret is refused")


def test_a_signature_that_is_wrong_is_explained(stage, browser):
    secret = secret_of(browser)
    browser.get("/signature")
    browser.send(
        "/signature",
        headers=f"-H 'X-API-Key: {secret}'\nX-Webhook-Signature: " + "0" * 64,
        body='{"a": 1}',
    )
    assert 'data-verdict="invalid_signature"' in browser.page
    browser.send("/signature", headers="no header", body="{}")
    assert browser.status == 400
    assert "This is no header" in browser.page


def test_networks_and_schemes(stage):
    browser, _ = approved(stage)
    browser.get("/settings")
    browser.send("/settings/allowlist", networks="203.0.113.0/24\r\n")
    assert "Take webhooks from these networks alone?" in browser.page
    assert "127.0.0.1" in browser.page
    browser.send("/settings/allowlist")
    assert "which is not in the list" in browser.page
    browser.send("/settings/allowlist", networks="nonsense")
    browser.send("/settings/allowlist")
    assert browser.status == 400
    assert "nonsense" in browser.page
    browser.get("/settings")
    browser.send("/settings/schemes")
    browser.send("/settings/schemes")
    assert "By Standard Webhooks alone." in browser.page


def test_an_application_that_is_sent_back_is_amended_and_sent_again(stage):
    browser, email = stage.registered()
    browser.get("/kyc")
    given = {
        "business_registration_number": "RC-1",
        "business_address": "1 Broad St",
        "contact_person_details": "Ada <Eze>",
    }
    browser.send("/kyc", **given)
    browser.send("/kyc")
    with stage.api.session() as session, session.begin():
        row = session.scalars(select(KycApplication).join(Account).where(Account.email == email))
        asked = row.one()
        asked.status, asked.reason = "incomplete", "Which <register>?"
    browser.get("/")
    assert "Amend it, and send it again" in browser.page
    browser.get("/kyc")
    for shown in ("We need to know more", "Which &lt;register&gt;?", "Ada &lt;Eze&gt;</textarea>"):
        assert shown in browser.page
    form = browser.page
    browser.send("/kyc", **given | {"business_registration_number": "RC-2 of Lagos"})
    browser.send("/kyc")
    assert "We are looking at your application" in browser.page
    assert "RC-2 of Lagos" in browser.page

    # The same form in another tab: the refusal and the typed text are shown.
    late = given | {"business_address": "2 <Marina> Rd"}
    for sure, status in ({}, 409), ({"sure": "yes"}, 400):
        browser.page = form
        browser.send("/kyc", **late, **sure)
        assert browser.status == status
        assert 'id="wrong"' in browser.page
        assert "2 &lt;Marina&gt; Rd" in browser.page


@pytest.mark.parametrize("status", ["rejected", "revoked"])
def test_an_application_that_was_refused_is_the_start_of_the_next_one(stage, status):
    browser, email = approved(stage)
    with stage.api.session() as session, session.begin():
        rows = session.scalars(select(KycApplication).join(Account).where(Account.email == email))
        rows.one().status = status
    browser.get("/kyc")
    for shown in ('value="RC-1"', ">\n1 Broad St</textarea>", ">\nAda</textarea>"):
        assert shown in browser.page


def test_emails_in_a_language_of_ones_own(stage):
    browser, _ = stage.registered("Kettle <script>alert(1)</script> Co")
    browser.get("/emails")
    assert "has your order" in browser.page
    for wrong in ({"language": "xx", "time_zone": "UTC"}, {"language": "fr", "time_zone": "Mars"}):
        browser.send("/emails", **wrong)
        assert browser.status == 400
    browser.send("/emails", language="fr", time_zone="Africa/Lagos")
    assert "Change the language and time zone of your emails?" in browser.page
    browser.send("/emails")
    assert "It is saved, and holds from the next email on." in browser.page
    assert "a bien reçu votre commande" in browser.page
    browser.get("/emails?email=order_cancelled&language=en")
    assert "was cancelled" in browser.page
    browser.get("/emails?email=nothing")
    assert browser.status == 404


def test_a_preview_runs_nothing_and_stands_in_our_own_page_alone(stage):
    browser, _ = stage.registered("Kettle <script>alert(1)</script> Co")
    browser.get("/emails")
    frame = re.search(r'<iframe[^>]* sandbox src="([^"]+)"', browser.page)[1]
    answer = browser.http.get(html.unescape(frame))
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "; sandbox;" in policy
    assert "frame-ancestors 'self'" in policy
    assert "script" not in policy
    assert "<script" not in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert browser.http.get("/emails/nothing/html").status_code == 404
    assert stage.browser().http.get(frame).status_code == 403


def test_a_password_is_in_no_page_and_changes_what_it_should(stage):
    browser, email = stage.registered()
    browser.get("/account")
    browser.send("/account/password", current_password=PASSWORD, password="some other horse 17")
    assert "Change your password?" in browser.page
    assert PASSWORD not in browser.page
    assert "some other horse 17" not in browser.page
    browser.send("/account/password")
    browser.get("/sign-in")
    browser.send("/sign-in", email=email, password="some other horse 17")
    assert "Sign out" in browser.page


def test_a_sealed_password_of_another_browser_is_none(stage):
    browser, _ = stage.registered()
    browser.get("/account")
    browser.send("/account/close", password=PASSWORD)
    sealed = re.search(r'name="password" value="([0-9a-f]+)"', browser.page)[1]
    other, email = stage.registered()
    other.get("/account")
    other.send("/account/close", password="x")
    other.send("/account/close", password=sealed)
    assert other.status == 400
    other.get("/account")
    other.send("/account/close", password=PASSWORD)
    other.send("/account/close")
    other.get("/sign-in")
    other.send("/sign-in", email=email, password=PASSWORD)
    assert other.status == 401


def test_sessions_are_seen_and_ended(stage):
    browser, email = stage.registered()
    phone = stage.browser(**{"User-Agent": "Firefox/140.0"})
    phone.get("/sign-in")
    phone.send("/sign-in", email=email, password=PASSWORD)
    browser.get("/account")
    assert "Firefox" in browser.page
    action = re.search(r'action="(/account/sessions/[^"]+/end)"', browser.page)[1]
    browser.send(action)
    assert "End the session from" in browser.page
    browser.send(action)
    assert "The session is ended." in browser.page
    assert "Email address" in phone.get("/")


def test_another_businesss_order_is_as_unknown_as_none(stage, browser):
    for path in ("/orders/018f0000-0000-7000-8000-000000000000", "/orders/..%2Fkyc"):
        browser.get(path)
        assert browser.status == 404


KEY = "whpk_kZsyrgJsDEDi7g7vg6Ns+R3BdkG9xTPVQsFiRW1kj5c="


def test_what_signs_beside_the_secret_is_listed_named_and_removed(stage):
    browser, email = approved(stage)
    secret_of(browser)
    pair = stage.api.http.post("/users/auth/login/", json={"email": email, "password": PASSWORD})
    me = {"Authorization": f"Bearer {pair.json()['access']}"}
    for shop in ("", "north & south"):
        given = {"secret": "0123456789abcdef0123456789abcdef", "shop": shop}
        answer = stage.api.http.put("/webhook/secret/shopify/", json=given, headers=me)
        assert answer.status_code == 200, answer.text
    answer = stage.api.http.post("/webhook/public-keys/", json={"public_key": KEY}, headers=me)
    assert answer.status_code == 201, answer.text
    browser.get("/secret")
    assert "Remove the test secret" not in browser.page
    browser.send("/secret/test")
    assert "mailed to you alone" in browser.page
    assert "Your password shows the new one." in browser.send("/secret/test")
    browser.send("/secret", password=PASSWORD)
    made = stage.api.http.get("/webhook/test-secret/", headers=me).json()["secret_key"]
    assert re.search(r"data-test-secret>([^<]+)<", browser.page)[1] == made
    browser.get("/secret")
    assert browser.page.count("data-other") == 3
    assert KEY in browser.page
    browser.send("/secret", password=PASSWORD)
    browser.send("/secret/replace")
    assert "2 Shopify secrets, 1 public key and any test secret" in browser.page
    assert "Every secret of today" not in browser.page

    def remove(named):
        """By the form in the row that names it."""
        browser.get("/secret")
        form = next(
            form
            for form in re.findall(r"<(?:tr|form)[^>]*>(?:(?!</tr>).)*?</form>", browser.page, re.S)
            if named in form and "/secret/others" in form
        )
        hidden = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form))
        data = {name: html.unescape(value) for name, value in hidden.items()}
        asked = browser.http.post("/secret/others", data=data).text
        assert "It stops working in the same moment" in asked
        browser.page = asked
        return browser.send("/secret/others")

    assert "Removed the Shopify secret" in remove("north &amp; south")
    assert "Removed a public key" in remove(KEY)
    assert "Removed the test secret" in remove("Remove the test secret")
    left = stage.api.http.get("/webhook/secret/shopify/", headers=me).json()["results"]
    assert [one["shop"] for one in left] == [""]
    assert stage.api.http.get("/webhook/public-keys/", headers=me).json()["public_keys"] == []
    assert stage.api.http.get("/webhook/test-secret/", headers=me).status_code == 404
