"""Parked messages in the console: seen on the first page, mended, tried, discarded."""

from playwright.sync_api import expect
from sqlalchemy import text

from services.audit.parsing import UNKNOWN
from shared.bus.contract.events import encode
from tests.browser.arrange import audited, customer, is_recorded, is_told, park
from tests.integration.arrange import order_created, until


def waiting(running):
    with running.session() as session:
        return session.execute(text("SELECT count(*) FROM outbox")).scalar()


def test_a_parked_message_is_told_of_and_goes_out_when_it_is_tried(page, running):
    order = order_created(customer_details=customer("parked"))
    number = park(running, order, exchange="gone")
    page.goto("/")
    trouble = page.locator(".troubles li", has_text="of the outbox cannot be published")
    trouble.get_by_role("link", name="Look").click()
    expect(page.locator("table")).to_contain_text("gone")
    page.goto(f"/outbox/messages/{number}")
    expect(page.locator(".trouble")).to_contain_text("gone")
    # Its cause is gone: what was named wrongly is right now.
    with running.session() as session:
        session.execute(
            text("UPDATE outbox SET exchange = 'intake' WHERE sequence = :n"), {"n": number}
        )
        session.commit()
    page.get_by_role("button", name="Try it now as it is").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Try this order.created now?")
    page.get_by_role("button", name="Try this order.created now").click()
    expect(page.get_by_role("status")).to_contain_text("It is tried now")
    until(lambda: is_recorded(running, order), "recorded")
    until(lambda: is_told(running, order), "delivered")
    until(lambda: audited(running, "ops.outbox_changed", "ada"), "it is audited")


def test_a_body_that_no_consumer_would_understand_is_refused(page, running):
    order = order_created(customer_details=customer("parked-edited"))
    number = park(running, order, exchange="gone")
    page.goto(f"/outbox/messages/{number}")
    page.get_by_label("Body").fill('{"order_id": 7}')
    page.get_by_role("button", name="Publish with this body").click()
    expect(page.get_by_role("alert")).to_contain_text("This is no order.created")
    page.get_by_label("Body").fill(encode(order).decode())
    page.get_by_role("button", name="Publish with this body").click()
    page.get_by_role("button", name="Publish this order.created").click()
    expect(page.get_by_role("status")).to_contain_text("with the new body")
    until(lambda: "Put it right" in page.request.get(f"/outbox/messages/{number}").text(), "back")
    page.goto(f"/outbox/messages/{number}")
    page.get_by_label("Reason for discarding").fill("A test of ours.")
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("button", name="Discard this order.created").click()
    expect(page.get_by_role("status")).to_have_text("It is discarded.")


def test_a_name_of_64_emoji_at_the_sign_in_stops_nothing(running, browser):
    context = browser.new_context()
    visitor = context.new_page()
    visitor.goto(f"{running.url}/sign-in")
    visitor.get_by_label("Name").fill("😀" * 64)
    visitor.get_by_label("Password").fill("wrong password")
    visitor.get_by_role("button", name="Sign in").click()
    expect(visitor.get_by_role("alert")).to_be_visible()
    context.close()
    until(lambda: audited(running, "ops.sign_in_failed", UNKNOWN), "it is audited")
    until(lambda: waiting(running) == 0, "nothing is left")
