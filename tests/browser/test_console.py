"""The ops console, as its users have it: in a real browser, before a running system."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from playwright.sync_api import expect
from sqlalchemy import select, text

from shared.db.models import KycApplication
from tests.browser.arrange import (
    a_dead_letter,
    audited,
    customer,
    emails,
    intake,
)
from tests.browser.conftest import PASSWORD, sign_in
from tests.integration.arrange import (
    account,
    depth,
    order_created,
    publish,
    until,
)


def test_signing_in_and_out(browser, running):
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    page.goto("/audit?words=ada")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{running.url}/audit?words=ada")
    (cookie,) = [c for c in context.cookies() if c["name"] == "fellow_session"]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(f"{running.url}/sign-in")
    context.add_cookies([cookie])
    page.goto("/")
    expect(page).to_have_url(re.compile("/sign-in"))
    context.close()
    for fact in ("ops.sign_in_failed", "ops.signed_in", "ops.signed_out"):
        until(lambda fact=fact: audited(running, fact, "ada"), f"{fact} is audited")


def test_times_are_told_where_the_reader_is(browser, running, signed_in):
    """Also those that come later by the stream; the title has them in UTC."""
    here = ZoneInfo("Asia/Kathmandu")  # 5:45 before UTC, all year
    context = browser.new_context(
        base_url=running.url, storage_state=signed_in, timezone_id=here.key
    )
    page = context.new_page()
    page.goto("/")
    for _ in range(2):
        told = page.locator(".asof time:not([data-utc])")
        # In one look: it is another time every two seconds.
        moment, title, shown = told.evaluate("one => [one.dateTime, one.title, one.textContent]")
        at = datetime.fromisoformat(moment)
        assert shown == f"{at.astimezone(here):%Y-%m-%d %H:%M:%S}"
        assert title.endswith("UTC")
        expect(told).not_to_have_attribute("datetime", moment)
    page.goto("/audit")
    expect(page.get_by_text(re.compile("Times and days are in Asia/Kath?mandu"))).to_be_visible()
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(re.compile("zone=Asia%2FKath?mandu"))
    # A link of somebody elsewhere shows the days that they chose.
    page.goto("/audit?since=2026-11-29&zone=America%2FLos_Angeles")
    days = re.compile("Times are in Asia/Kath?mandu, days are those of America/Los_Angeles")
    expect(page.get_by_text(days)).to_be_visible()
    expect(page.locator("input[name=zone]")).to_have_value("America/Los_Angeles")
    context.close()
    plain = browser.new_context(
        base_url=running.url, storage_state=signed_in, java_script_enabled=False
    )
    page = plain.new_page()
    page.goto("/")
    expect(page.locator(".asof time")).to_contain_text("UTC")
    plain.close()


def test_an_application_is_approved_and_the_outcome_shown(page, running):
    with running.session() as session:
        business = account(session, status="pending", company_name="Blue Kettle Ltd")
    page.goto("/kyc")
    card = page.locator(f"#account-{business.id}")
    expect(card).to_contain_text(business.email)
    card.get_by_role("button", name="Approve").click()
    expect(page.locator("main")).to_contain_text(business.email)
    page.get_by_role("button", name="Approve Blue Kettle Ltd").click()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    with running.session() as session:
        found = session.scalar(
            select(KycApplication).where(KycApplication.account_id == business.id)
        )
    assert found.decided_by == "ada (fellow_console)"
    until(lambda: audited(running, "kyc.approved", "ada (fellow_console)"), "it is audited")
    page.goto(f"/accounts/{business.id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("KYC approved")


def test_a_refused_decision_says_why(page, running):
    with running.session() as session:
        business = account(session, status="pending")
    page.goto("/kyc")
    page.locator(f"#account-{business.id}").get_by_role("button", name="Approve").click()
    sure = page.get_by_role("button", name="Approve Kettle & Co")
    expect(sure).to_be_visible()
    with running.session() as session, session.begin():
        session.execute(
            text("UPDATE kyc_applications SET status = 'rejected' WHERE account_id = :id"),
            {"id": business.id},
        )
    sure.click()
    expect(page.locator("[data-outcome=refused]")).to_contain_text("must submit again")


def test_a_queue_rises_and_falls_before_your_eyes(page, running):
    page.goto("/")
    ready = page.locator("#queue-orders-intake [data-figure=ready]")
    expect(ready).to_have_text("0")
    running.recorder.stop()
    try:
        publish(running.amqp_url, *(intake(order_created()) for _ in range(25)))
        expect(ready).to_have_text("25")
        expect(page.locator(".troubles")).to_contain_text("orders.intake has no consumer")
        assert depth(running.amqp_url, "orders.intake") == 25
    finally:
        running.recorder.start()
    expect(ready).to_have_text("0")


def test_an_orders_trail_is_found_by_its_customer(page, running):
    order = order_created(customer_details=customer("trail"))
    publish(running.amqp_url, intake(order))
    # In a mailbox it is a moment earlier, and the page says how it stood when it was loaded.
    until(lambda: emails(running, [order.order_id]), "that the customer is told is written down")
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("trail@shop.example")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{running.url}/orders/{order.order_id}")
    trail = page.locator(".trail")
    for step in ("accepted", "recorded", "PENDING", "order_received to trail@shop.example: sent"):
        expect(trail).to_contain_text(step)


def test_the_keys_of_one_letter_can_be_turned_off(page, running):
    page.goto("/sessions")
    keys = page.get_by_label("Keys of one letter")
    expect(keys).to_be_checked()
    for is_on in (False, True):
        keys.set_checked(is_on)
        page.goto("/audit")
        page.get_by_role("heading", level=1).click()
        page.keyboard.press("/")
        assert page.locator("#find").evaluate("one => one === document.activeElement") == is_on
        page.goto("/sessions")


def test_somebody_who_watches_is_shown_nothing_to_press(browser, running):
    context = browser.new_context(base_url=running.url)
    page = context.new_page()
    sign_in(page, running, "wole")
    a_dead_letter(running, order_created(), body=b"{}")
    with running.session() as session:
        account(session, status="pending")
    for path in ("/kyc", "/dead/orders.intake"):
        page.goto(path)
        expect(page.locator("main button:not(.second)")).to_have_count(0)
    context.close()


def test_on_paper_a_page_is_dark_ink_and_has_nothing_to_press(browser, running, signed_in):
    context = browser.new_context(
        base_url=running.url, storage_state=signed_in, color_scheme="dark"
    )
    page = context.new_page()
    page.goto("/audit")
    paper = "getComputedStyle(document.body).backgroundColor"
    on_screen = page.evaluate(paper)
    page.emulate_media(media="print")
    assert page.evaluate(paper) == "rgb(246, 246, 243)" != on_screen
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
    for pressed in ("button", "nav", "input"):
        assert [one for one in page.locator(pressed).all() if one.is_visible()] == [], pressed
    context.close()
