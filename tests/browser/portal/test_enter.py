"""Enter in a form of the portal does nothing that was not asked about, whatever is filled in."""

import pytest
from sqlalchemy import select, text

from services.portal.app import PAGES
from shared.db.models import Account
from tests.browser.arrange import TYPED, press_enter
from tests.browser.conftest import PASSWORD
from tests.browser.portal.test_portal import Business
from tests.integration.arrange import application, until

FITTING = {"email": "other@kettle.example", "password": PASSWORD, "date": "2026-11-01"}
WORDS = "What was typed here"
FILE = b"name,email,item_summary,address\nAda,ada@shop.example,kettle,here\n"


@pytest.fixture(scope="module")
def services():
    """Without those that would act on it: what is asked of the API is done by it."""
    return {"ingress", "portal", "notifier", "relay"}


@pytest.fixture(scope="module")
def variables():
    return {"ACCOUNT_ATTEMPTS_PER_MINUTE": "1000"}


def state(running):
    """Whatever may not change."""
    with running.session() as session:
        return [
            session.execute(text(query)).all()
            for query in (
                "SELECT id, email, password_hash, closed_at FROM accounts ORDER BY id",
                "SELECT id, status FROM kyc_applications ORDER BY id",
                "SELECT account_id, allowed_networks, standard_webhooks_only FROM webhook_policies",
                "SELECT id, state FROM webhook_secrets ORDER BY id",
                "SELECT id, ended_at FROM account_sessions ORDER BY id",
                "SELECT account_id, display_name, reply_to FROM email_senders ORDER BY account_id",
                "SELECT id FROM suppressions ORDER BY id",
                "SELECT id FROM orders ORDER BY id",
                "SELECT event_id FROM webhook_requests ORDER BY event_id",
            )
        ]


def approve(running, email):
    with running.session() as session, session.begin():
        account = session.scalar(select(Account).where(Account.email == email))
        session.add(application(account, "approved"))


def fill(form):
    for field in form.locator(TYPED).all():
        kind = field.evaluate("one => one.type")
        if kind == "file":
            field.set_input_files({"name": "orders.csv", "mimeType": "text/csv", "buffer": FILE})
        elif kind not in ("select-one", "checkbox"):
            field.fill(FITTING.get(kind, WORDS))


@pytest.mark.timeout(600)
def test_enter_in_any_field_of_any_form_asks_at_most(browser, running):
    business = Business(browser, running)
    business.registers()
    page, asked, tried = business.page, set(), 0
    before = state(running)
    pages = [p for p in PAGES if p.method == "GET" and p.needs == "business"]
    shown = [p.path for p in pages if "{" not in p.path and not p.asks_by_itself]
    # A file is chosen by who may send one.
    for path in (*shown, "approved", "/upload"):
        if path == "approved":
            approve(running, business.email)
            before = state(running)
            continue
        page.goto(path)
        forms = [one.locator(TYPED).count() for one in page.locator("form").all()]
        for number, fields in enumerate(forms):
            for place in range(fields):
                page.goto(path)
                form = page.locator("form").nth(number)
                fill(form)
                field = form.locator(TYPED).nth(place)
                kind = field.evaluate("one => one.type")
                field.focus()
                press_enter(page, kind)
                tried += 1
                if page.locator("input[name=sure]").count():
                    asked.add(page.get_by_role("heading", level=1).text_content())
                    assert page.locator("main").locator(TYPED).count() == 0
                assert state(running) == before, (path, number, place)
    assert tried > 15
    assert page.locator("input[type=file]").count() or "would be taken" in page.title()
    for question in (
        "Send this application?",
        "Change your password?",
        "Close your account",
        "Change how your customers see you?",
        "Take what Shopify signs with this secret?",
    ):
        assert any(title.startswith(question) for title in asked), asked
    # What was asked about is done by the button, and by nothing else.
    page.goto("/")
    business.press("Sign out")
    page.get_by_label("Email address").fill(business.email)
    page.get_by_label("Password").fill(PASSWORD)
    business.press("Sign in")
    page.goto("/account")
    page.locator("#close-password").fill(PASSWORD)
    business.press("Close it …")
    business.press("Close the account")
    until(lambda: state(running)[0][0].closed_at, "the account is closed")
    assert business.complaints == []
    business.context.close()
