"""The KYC desk where a decision takes two: it says who has decided, and who is still needed."""

import pytest
from playwright.sync_api import expect
from sqlalchemy import select

from services.ops.users import users
from shared.db.models import AuditEntry, KycApplication
from tests.browser.arrange import audited
from tests.browser.conftest import PASSWORD, sign_in
from tests.integration.arrange import account, application, until


@pytest.fixture(scope="module")
def services():
    return {"ops", "kyc", "secrets", "audit", "relay"}


@pytest.fixture(scope="module")
def variables():
    return {"KYC_APPROVALS_REQUIRED": "2"}


@pytest.fixture
def ola(browser, running):
    with running.session() as session, session.begin():
        users.put(session, "ola", "act", PASSWORD)
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    sign_in(page, running, "ola")
    yield page
    context.close()


def card_of(page, business, status):
    page.goto(f"/kyc?status={status}")
    return page.locator(f"#account-{business.id}")


def press(page, card, button, sure):
    card.get_by_role("button", name=button).click()
    page.get_by_role("button", name=sure).click()
    outcome = page.locator("[data-outcome='carried out']")
    expect(outcome).to_be_visible()
    return outcome


def test_an_approval_and_a_revocation_take_two(page, ola, running):
    with running.session() as session:
        business = account(session, status="pending", company_name="Blue Kettle Ltd")
    card = card_of(page, business, "pending")
    expect(page.locator("main")).to_contain_text("To approve takes 2 operators")
    expect(card.locator("[data-so-far]")).to_have_count(0)
    outcome = press(page, card, "Approve", "Approve Blue Kettle Ltd")
    expect(outcome).to_contain_text("is pending. Recorded: 1 of 2 for approve: ada")
    card = card_of(page, business, "pending")
    expect(card.locator("[data-so-far]")).to_contain_text("1 more of other names needed")
    expect(card).to_contain_text("somebody else has to do the same")
    expect(card.get_by_role("button", name="Approve")).to_have_count(0)
    expect(card.get_by_role("button", name="Reject")).to_have_count(1)
    card = card_of(ola, business, "pending")
    expect(card.locator("[data-so-far]")).to_contain_text("1 of 2 for approve: ada")
    card.get_by_role("button", name="Approve").click()
    expect(ola.locator("main")).to_contain_text("1 of 2 for approve: ada")
    ola.get_by_role("button", name="Approve Blue Kettle Ltd").click()
    expect(ola.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    until(lambda: audited(running, "kyc.approved", "ada"), "it is audited")
    with running.session() as session:
        recorded = select(AuditEntry).where(AuditEntry.type == "ops.kyc_decision_recorded")
        actors = [entry.actor.partition(" ")[0] for entry in session.scalars(recorded)]
    assert sorted(actors) == ["ada", "ola"]

    press(page, card_of(page, business, "approved"), "Revoke", "Revoke Blue Kettle Ltd")
    card = card_of(page, business, "approved")
    expect(card.locator("[data-so-far]")).to_contain_text("1 of 2 for revoke: ada")
    expect(card.get_by_role("button", name="Revoke")).to_have_count(0)
    press(page, card, "Take back my revocation", "Take back the revocation of Blue Kettle Ltd")
    card = card_of(page, business, "approved")
    expect(card.locator("[data-so-far]")).to_have_count(0)
    for person in (page, ola):
        press(person, card_of(person, business, "approved"), "Revoke", "Revoke Blue Kettle Ltd")
    with running.session() as session:
        found = session.scalars(
            select(KycApplication).where(KycApplication.account_id == business.id)
        ).one()
    assert found.status == "revoked"
    assert [name.partition(" ")[0] for name in found.decided_by.split(", ")] == ["ada", "ola"]


def test_an_application_that_was_replaced_meanwhile_is_not_decided_on(page, running):
    with running.session() as session:
        business = account(session, status="pending", company_name="Red Kettle Ltd")
    card = card_of(page, business, "pending")
    with running.session() as session, session.begin():
        session.scalars(
            select(KycApplication).where(KycApplication.account_id == business.id)
        ).one().status = "rejected"
        session.add(application(business))
    card.get_by_role("button", name="Approve").click()
    expect(page.locator("main")).to_contain_text("another application since")
