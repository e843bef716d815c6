"""The portal, as a business has it: in a real browser, before a running system."""

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from shared.ids import new_id
from stack.mailbox import text_of
from tests.browser.arrange import faults_here, faults_of, width_of
from tests.browser.conftest import PASSWORD, listen
from tests.integration.arrange import PATIENCE, publish_raw, sign, until

LONG = "W" * 200
ORDER = {
    "customer_details": {"name": LONG, "email": "zoe@shop.example", "phone": "+234"},
    "item_summary": "2 × blue kettle " + LONG,
    "address": "12 Marina Road, Lagos",
    "tracking_status": "PENDING",
}


@pytest.fixture(scope="module")
def services():
    return {"ingress", "portal", "orders", "kyc", "secrets", "notifier", "relay", "audit"}


@pytest.fixture(scope="module")
def variables():
    return {"ACCOUNT_ATTEMPTS_PER_MINUTE": "1000"}


def mail_to(running, address, subject):
    def find():
        for mail in running.mail.maildir.emails():
            if address in str(mail["To"]) and subject in str(mail["Subject"]):
                return text_of(mail)
        return None

    return until(find, f"an email to {address}")


def send(running, secret):
    body = json.dumps(ORDER).encode()
    url = f"{running.api_url}/api/v1/webhooks/orders/"
    answer = httpx.post(url, content=body, headers=sign(secret, body), timeout=PATIENCE)
    assert answer.status_code == 201, answer.text


class Business:
    """A new business that goes the whole way in its browser; the operator's decision aside."""

    def __init__(self, browser, running):
        self.running = running
        self.email = f"{new_id()}@kettle.example"
        self.context = browser.new_context(base_url=running.portal_url)
        self.page = self.context.new_page()
        self.complaints = listen(self.page)

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def registers(self):
        page = self.page
        page.goto("/register")
        page.get_by_label("Name of your business").fill(LONG)
        page.get_by_label("Email address").fill(self.email)
        page.get_by_label("Password").fill(PASSWORD)
        self.press("Register")
        expect(page.get_by_text("We have mailed a code to")).to_be_visible()
        code = re.search(r"\b\d{6}\b", mail_to(self.running, self.email, "code"))[0]
        page.get_by_label("Code").fill(code)
        self.press("Prove my address")
        page.get_by_label("Password").fill(PASSWORD)
        self.press("Sign in")
        expect(page.get_by_text("1 of 5 steps")).to_be_visible()

    def applies(self):
        page = self.page
        page.get_by_role("link", name="Apply").click()
        page.get_by_label("Registration number").fill("RC-" + LONG[:150])
        page.get_by_label("Address").fill("1 Broad Street")
        page.get_by_label("Contact person").fill("Ada Eze")
        self.press("Send …")
        expect(page.get_by_role("heading", level=1)).to_have_text("Send this application?")
        self.press("Send the application")
        expect(page.get_by_text("We are looking at your application")).to_be_visible()
        decision = json.dumps({"decision": "approve", "email": self.email}).encode()
        publish_raw(self.running.amqp_url, "commands", "kyc.decide", decision)
        mail_to(self.running, self.email, "secret is ready")
        page.goto("/")
        expect(page.get_by_text("3 of 5 steps")).to_be_visible()

    def fetches_the_secret(self):
        page = self.page
        page.goto("/secret")
        page.get_by_label("Password").fill(PASSWORD)
        self.press("Show the secret")
        return page.locator("[data-secret]").text_content()

    def sends(self):
        secret = self.fetches_the_secret()
        self.page.get_by_role("link", name="Send a first request").click()
        expect(self.page.get_by_text("Waiting for your first request")).to_be_visible()
        send(self.running, secret)
        # Nobody presses anything: the page looks out by itself.
        expect(self.page.locator(".arrived.good")).to_contain_text("was accepted")
        self.page.get_by_role("link", name="The order", exact=True).click()
        trail, sent = self.page.locator(".trail"), "Email to zoe@shop.example: sent"

        def is_told():
            """The page says how the order stood when it was loaded."""
            self.page.reload()
            return any(sent in " ".join(text.split()) for text in trail.all_text_contents())

        until(is_told, "it is recorded, and the customer is told")
        self.page.goto("/")
        expect(self.page.get_by_text("You are live")).to_be_visible()


@pytest.fixture(scope="module")
def business(browser, running):
    found = Business(browser, running)
    found.registers()
    found.applies()
    found.sends()
    yield found
    found.context.close()
    assert found.complaints == []


def tracking_link(running):
    return re.search(r"http\S+/track/\S+", mail_to(running, "zoe@shop.example", "has your order"))[
        0
    ]


def paths(business):
    page = business.page
    page.goto("/requests")
    request = page.locator("tbody a").first.get_attribute("href")
    page.goto("/orders")
    order = page.locator("tbody a").first.get_attribute("href")
    page.goto(tracking_link(business.running))
    leaving = page.locator("a[href*='/unsubscribe/']").get_attribute("href")
    return (
        "/",
        "/kyc",
        "/secret",
        "/first-request",
        "/requests",
        request,
        "/orders",
        order,
        "/signature",
        "/upload",
        "/activity",
        "/settings",
        "/emails",
        "/emails?email=order_cancelled&language=fr",
        "/emails/sender",
        "/emails/refused",
        "/shops",
        f"/signature?of={request.rpartition('/')[2]}",
        "/account",
        "/account/email/verify",
        "/nowhere",
        tracking_link(business.running),
        f"{tracking_link(business.running)}x",
        leaving,
    )


STRANGERS = (
    "/sign-in",
    "/register",
    "/verify?email=x@kettle.example",
    "/verify?email=x@kettle.example&said=again",
    "/sign-in?said=ended",
    "/password/lost",
    "/password/reset",
)


@pytest.mark.timeout(600)
def test_from_nothing_to_the_first_order(business, browser, running):
    context = browser.new_context()
    page = context.new_page()
    page.goto(tracking_link(running))
    expect(page.get_by_role("heading", level=1)).to_have_text("Your order is pending")
    expect(page.get_by_text("2 × blue kettle")).to_be_visible()
    assert context.cookies() == []
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("scheme", "rules"), [("light", None), ("dark", ["color-contrast"])])
@pytest.mark.timeout(600)
def test_every_page_can_be_used_by_everybody(
    business, browser, running, width, scheme, rules, request
):
    pictures = request.config.rootpath / ".stack" / "pictures"
    kept = business.context.storage_state()
    listed = paths(business)
    faults = []
    for state, shown in ((kept, listed), (None, STRANGERS)):
        context = browser.new_context(
            base_url=running.portal_url,
            storage_state=state,
            color_scheme=scheme,
            viewport={"width": width, "height": 844},
        )
        page = context.new_page()
        for number, path in enumerate(shown):
            faults += faults_of(page, path, rules)
            wide = width_of(page)
            faults += [(path, "wide", wide)] if wide > width else []
            _picture(page, pictures, f"{'in' if state else 'out'}-{number}-{width}-{scheme}")
        context.close()
    assert faults == []


def _picture(page, folder: Path, name: str) -> None:
    """For people: nothing depends on it."""
    if folder.is_dir():
        page.screenshot(path=folder / f"{name}.png", full_page=True)


@pytest.mark.timeout(600)
def test_the_secret_and_its_questions_fit_a_phone(business, browser, running):
    business.page.set_viewport_size({"width": 390, "height": 844})
    try:
        business.fetches_the_secret()
        for button in ("Make a new one …", "Replace it at once …"):
            business.fetches_the_secret()
            assert width_of(business.page) <= 390
            business.press(button)
            expect(business.page.locator("input[name=sure]")).to_be_attached()
            assert width_of(business.page) <= 390
            assert faults_here(business.page, button, None) == []
    finally:
        business.page.set_viewport_size({"width": 1280, "height": 844})


@pytest.mark.timeout(600)
def test_a_refused_form_can_be_used_by_everybody(business):
    page = business.page
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        page.goto("/emails")
        page.get_by_label("Time zone").fill("Lagos")
        business.press("Save …")
        expect(page.locator("#wrong")).to_be_focused()
        expect(page).to_have_title(re.compile("^Error: "))
        zone = page.get_by_label("Time zone")
        expect(zone).to_have_accessible_description(re.compile("That is no time zone"))
        expect(zone).to_have_value("Lagos")
        assert width_of(page) <= 390
        assert faults_here(page, "refused", None) == []
    finally:
        page.set_viewport_size({"width": 1280, "height": 844})


@pytest.mark.timeout(600)
def test_all_of_it_works_without_scripts(business, browser, running):
    context = browser.new_context(base_url=running.portal_url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/settings")
    page.get_by_label("Email address").fill(business.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{running.portal_url}/settings")
    page.get_by_label("Networks").fill("127.0.0.0/8")
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(page.get_by_label("Networks")).to_have_value("127.0.0.0/8")
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="Take them from there alone").click()
    expect(page.get_by_role("status")).to_contain_text("The networks are saved.")
    page.goto("/first-request")
    expect(page.locator(".arrived")).to_contain_text("Waiting for your next request")
    page.goto("/emails/sender")
    page.get_by_label("Name before our address").fill("Kettles of Lagos")
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("It is saved.")
    page.goto("/emails/refused?cause=refused")
    expect(page.get_by_text("Nobody of these.")).to_be_visible()
    page.goto("/requests")
    expect(page.get_by_text("Pause")).to_be_hidden()  # nothing moves
    page.locator("tbody a").first.click()
    page.get_by_role("link", name="Check its signature").click()
    expect(page.get_by_label("Headers")).to_have_value("X-API-Key: \nX-Webhook-Signature: ")
    page.goto("/shops")
    expect(page.locator("[data-url=shopify]")).to_contain_text("/shopify/")
    page.goto(tracking_link(running))
    expect(page.locator(".way li.done")).to_have_count(1)
    page.goto("/account")
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{running.portal_url}/sign-in")
    context.close()


@pytest.mark.timeout(600)
def test_the_list_of_requests_grows_by_itself_and_leaves_the_focus_where_it_is(business, running):
    page, secret = business.page, business.fetches_the_secret()
    page.goto("/requests")
    rows, link = page.locator("tbody tr"), page.locator("tbody a").first
    link.focus()
    before, focused = rows.count(), link.get_attribute("id")
    send(running, secret)
    expect(rows).to_have_count(before + 1)
    expect(page.locator(f"[id='{focused}']")).to_be_focused()
    pause = page.get_by_role("button", name="Pause")
    pause.click()
    asked = "document.addEventListener('htmx:before:request', () => { window.asked = true })"
    page.evaluate(asked)
    send(running, secret)
    until(lambda: page.wait_for_timeout(50) or page.evaluate("window.asked"), "it would ask")
    page.wait_for_timeout(200)  # for an answer, if it had asked
    expect(rows).to_have_count(before + 1)
    pause.click()
    expect(rows).to_have_count(before + 2)


@pytest.mark.timeout(600)
def test_a_business_sees_its_customers_emails_and_nothing_in_them_runs(business):
    page = business.page
    page.goto("/emails?email=order_out_for_delivery&language=fr")
    email = page.frame_locator("iframe.email")
    expect(email.get_by_role("heading", level=1)).to_have_text(
        "Votre commande est en cours de livraison"
    )
    expect(page.locator("pre")).to_contain_text("[x] en cours de livraison")
    # Its own styles count, and it is nobody's origin.
    card = email.locator(".card")
    assert card.evaluate("one => getComputedStyle(one).borderRadius") == "12px"
    frame = page.frames[1]
    assert frame.evaluate("window.origin") == "null"
