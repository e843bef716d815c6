"""What is commanded about a business on its page, and what has become of it."""

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from shared.db.models import WebhookPolicy, WebhookSecret
from tests.browser.arrange import audited
from tests.integration.arrange import account, until


@pytest.fixture(scope="module")
def services():
    return {"ops", "kyc", "secrets", "audit", "relay"}


@pytest.fixture
def business(page, running):
    """Approved as people approve, so that it has a secret."""
    with running.session() as session:
        made = account(session, status="pending", company_name="Blue Kettle Ltd")
    page.goto(f"/kyc?words={made.email}")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve Blue Kettle Ltd").click()
    expect(page.locator("[data-outcome='carried out']")).to_be_visible()
    until(lambda: states(running, made) == ["active"], "it has a secret")
    return made


def states(running, business):
    with running.session() as session:
        query = select(WebhookSecret.state).where(WebhookSecret.account_id == business.id)
        return sorted(session.scalars(query))


def policy(running, business):
    with running.session() as session:
        return session.get(WebhookPolicy, business.id)


def carry_out(page, business, button, sure, **fields):
    page.goto(f"/accounts/{business.id}")
    form = page.locator("form", has=page.get_by_role("button", name=button, exact=True))
    for name, value in fields.items():
        field = form.locator(f"[name={name}]")
        field.select_option(value) if name == "secret_id" else field.fill(value)
    form.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{sure} Blue Kettle Ltd?")
    page.get_by_role("button", name=f"{sure} Blue Kettle Ltd").click()
    outcome = page.locator("[data-outcome='carried out']")
    expect(outcome).to_be_visible()
    outcome.get_by_role("link").click()


def test_its_secrets_are_replaced_and_revoked(page, running, business):
    carry_out(page, business, "Replace the secret …", "Replace the webhook secret of")
    assert states(running, business) == ["active", "retiring"]
    until(lambda: audited(running, "ops.command_published", "ada"), "it is audited")
    carry_out(page, business, "Replace it at once …", "Replace at once the webhook secrets of")
    assert states(running, business) == ["active", "revoked", "revoked"]
    page.goto(f"/accounts/{business.id}")
    page.get_by_role("button", name="Revoke …").click()
    # Without a reason nothing is asked, and nothing is done.
    expect(page).to_have_url(f"{running.url}/accounts/{business.id}")
    everything = "Revoke all webhook secrets and public keys of"
    carry_out(page, business, "Revoke …", everything, secret_id="all", reason="Leaked.")
    assert set(states(running, business)) == {"revoked"}
    expect(page.get_by_role("button", name="Revoke …")).to_have_count(0)


def test_its_rate_is_set_and_it_is_blocked(page, running, business):
    carry_out(page, business, "Set the limit …", "Set how much may be sent by", per_second="50")
    assert policy(running, business).rate_per_second == 50
    expect(page.locator("main")).to_contain_text("50 requests a second")
    carry_out(page, business, "Set the limit …", "Set how much may be sent by", per_second="")
    assert policy(running, business).rate_per_second is None
    carry_out(page, business, "Block …", "Block", reason="Complaints.")
    assert policy(running, business).blocked_at is not None
    expect(page.get_by_role("heading", level=1)).to_contain_text("blocked")
    carry_out(page, business, "Unblock …", "Unblock")
    assert policy(running, business).blocked_at is None


def test_what_is_not_there_or_makes_no_sense_is_refused_in_words(page, running, business):
    page.goto(f"/accounts/{business.id}")
    form = page.locator("form", has=page.get_by_role("button", name="Set the limit …"))
    form.locator("[name=per_second]").evaluate("one => { one.type = 'text'; one.value = '-3'; }")
    form.get_by_role("button").click()
    expect(page.locator("main")).to_contain_text("a whole number from 1 to 1,000,000")
    page.goto(f"/accounts/{business.id}/requests?code=invalid_signature&before=nonsense")
    expect(page.locator("main")).to_contain_text("None before these")
    page.goto("/accounts/01a20f55-00c3-7333-9632-bc111e20f1d5/orders")
    expect(page.get_by_text(re.compile("There is no business"))).to_be_visible()
