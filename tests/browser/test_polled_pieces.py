"""Pieces of pages that ask by themselves: one that could not be asked stays, and asks again."""

import re

import pytest
from playwright.sync_api import expect

from services.ops.dead_letters.digest import FEW
from shared.ids import new_id
from tests.browser.arrange import customer, intake, is_recorded
from tests.integration.arrange import account, order_created, publish, until
from tests.integration.ops.dead_letters.test_dead_letters import bury

SAID = "Nothing was changed."
ERROR = f"<!doctype html><title>503</title><main><h1>{SAID}</h1></main>"


@pytest.fixture(scope="module")
def services():
    return {"ops", "kyc", "secrets", "orders", "audit", "relay"}


def trouble(page, pattern, status=503, times=2, body=ERROR):
    """Answer the next requests for a piece with an error page; those that were.

    Where `times` is None all of them, until the route is removed.
    """
    answered = []

    def handle(route):
        answered.append(route.request.url)
        route.fulfill(status=status, content_type="text/html", body=body)

    page.route(re.compile(pattern), handle, times=times)
    return answered


def test_what_becomes_of_a_decision_is_asked_again_after_an_error(page, running):
    with running.session() as session:
        business = account(session, status="pending", company_name="Iron Kettle Ltd")
    answered = trouble(page, "/outcomes/", times=None)
    page.goto("/kyc?words=iron")
    page.locator(f"#account-{business.id}").get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve Iron Kettle Ltd").click()
    until(lambda: page.wait_for_timeout(50) or len(answered) > 1, "it was asked again")
    expect(page.locator("#outcome [role=status]")).to_contain_text("Published")
    expect(page.locator("[data-stale]")).to_contain_text("cannot be updated at the moment")
    assert SAID not in page.content()
    # A screen reader tells what changes in an element, and not one that takes its place.
    page.evaluate("document.querySelector('#outcome [role=status]').isTheSame = true")
    page.unroute_all()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    expect(page.locator("[data-stale]")).to_have_count(0)
    assert page.evaluate("document.querySelector('[data-outcome]').isTheSame")
    later = trouble(page, "/outcomes/", times=None)
    page.wait_for_timeout(1_500)  # more than from one look to the next
    assert later == []


@pytest.mark.parametrize("status", [503, 403])
def test_a_trail_is_not_lost_where_the_bus_could_not_be_looked_through(page, running, status):
    order = order_created(customer_details=customer("kept"))
    publish(running.amqp_url, intake(order))
    until(lambda: is_recorded(running, order), "it is recorded")
    answered = trouble(page, "everywhere=yes", status)
    page.goto(f"/orders/{order.order_id}")
    until(lambda: page.wait_for_timeout(50) or answered, "it was asked")
    page.wait_for_timeout(500)  # for what a browser makes of the answer
    expect(page.locator(".trail")).to_contain_text("recorded")
    assert SAID not in page.content()


def test_a_piece_whose_session_has_ended_is_not_the_sign_in_page(page, running):
    piece = f"/accounts/{new_id()}/outcomes/{new_id()}"
    page.context.clear_cookies()
    page.goto("/sign-in")
    answer = page.request.get(piece, max_redirects=0)
    assert answer.status == 403
    assert "You are signed out" in answer.text()


def test_figures_are_not_new_because_somebody_looks_at_them(page):
    page.clock.install()
    page.route("**/live/overview", lambda route: route.fulfill(status=403))
    with page.expect_response("**/live/overview"):
        page.goto("/")
    # What is still asked for when the hour is over has run out of time, and says so.
    expect(page.locator("#live")).not_to_have_class(re.compile("htmx-request"))
    page.clock.fast_forward(3_600_000)
    expect(page.locator("#stale")).to_be_visible()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.clock.run_for(7_000)
    expect(page.locator("#stale")).to_be_visible()
    expect(page).to_have_title("(?) Overview · Order Fellow")
    expect(page.locator(".asof")).to_contain_text(re.compile(r"As of \d{4}-\d\d-\d\d "))
    page.unroute("**/live/overview")
    page.clock.run_for(11_000)
    expect(page.locator("#stale")).to_be_hidden()


def test_a_stream_that_did_not_begin_is_tried_again(page):
    tried = []

    def answer(route):
        tried.append(route)
        if len(tried) > 1:
            route.continue_()
        else:
            route.fulfill(status=503)

    page.route("**/live/overview", answer)
    page.goto("/")
    shown = page.locator(".asof time").get_attribute("datetime")
    page.evaluate("window.begun = 0")
    page.evaluate(
        "addEventListener('htmx:sse:after:connection', () => { window.begun += 1 }, true)"
    )
    expect(page.locator(".asof time")).not_to_have_attribute("datetime", shown)
    page.wait_for_timeout(11_000)
    # One that is there is left alone.
    assert (len(tried), page.evaluate("window.begun")) == (2, 1)


def test_figures_that_move_can_be_paused(page):
    # A paused page begins no stream.
    with page.expect_response("**/live/overview"):
        page.goto("/")
    pause, told = page.get_by_role("button", name="Pause"), page.locator(".asof time")
    expect(pause).to_have_attribute("aria-pressed", "false")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    page.evaluate("window.heard = 0")
    page.evaluate("addEventListener('htmx:sse:before:message', () => { window.heard += 1 }, true)")
    shown = told.get_attribute("datetime")
    until(lambda: page.wait_for_timeout(50) or page.evaluate("window.heard") > 1, "it hears")
    assert told.get_attribute("datetime") == shown
    expect(page).to_have_title("(?) Overview · Order Fellow")
    expect(page.locator("#stale")).to_be_hidden()
    pause.click()
    expect(told).not_to_have_attribute("datetime", shown)


def test_the_tab_says_how_much_is_wrong_while_another_one_is_looked_at(page, running):
    page.goto("/")
    icon = page.locator("link[rel=icon]")
    title = page.title()

    def says_another_number():
        page.wait_for_timeout(200)
        # Between two looks it may say that it does not know.
        return page.title() != title and re.match(r"\(\d+\) Overview", page.title())

    page.evaluate(
        "Object.defineProperty(document, 'hidden', { get: () => true });"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    running.recorder.stop()
    try:
        until(says_another_number, "it says one more")
        expect(icon).to_have_attribute("href", re.compile("mark-trouble"))
    finally:
        running.recorder.start()


def test_a_letter_of_a_long_queue_comes_by_itself_or_says_why_not(page, running):
    last = bury(running.amqp_url, *(order_created() for _ in range(FEW + 1)))[-1]
    listed = "/dead/orders.intake"
    seen = "Looked through"
    until(lambda: page.goto(listed) and seen in page.content(), "it was looked through")
    page.goto(f"{listed}/letter?id={last.message_id}")
    expect(page.get_by_label("Body")).to_be_visible()
    expect(page.locator("#letter")).to_have_count(1)
    # What was typed into it is there after an error, once it has come again.
    page.get_by_label("Body").fill("{ }")
    away = page.request.get("/nowhere").text()
    page.route(
        re.compile("/edit$"),
        lambda route: route.fulfill(status=503, content_type="text/html", body=away),
    )
    page.get_by_role("button", name="Replay with this body").click()
    expect(page.get_by_text("404")).to_be_visible()
    page.unroute_all()
    page.goto(f"{listed}/letter?id={last.message_id}")
    expect(page.get_by_label("Body")).to_have_value("{ }")
    trouble(page, "now=yes", 403)
    page.goto(f"{listed}/letter?id={last.message_id}")
    expect(page.locator("main")).to_contain_text(SAID)
    expect(page.get_by_label("Body")).to_have_count(0)
    page.unroute_all()
    # What was seen of it before stays, whoever answers: a proxy's page has no `main`.
    for body in (ERROR, "<h1>502 Bad Gateway</h1>"):
        trouble(page, "now=yes", body=body)
        page.goto(f"{listed}/letter?id={last.message_id}")
        status = page.locator("#letter [role=status]")
        expect(status).to_have_text("It cannot be fetched at the moment: try again.")
        expect(page.locator("#letter")).to_contain_text(last.message_id)
        expect(page.locator("#letter .trouble")).not_to_be_empty()
        page.unroute_all()
        status.get_by_role("link", name="try again").click()
        expect(page.get_by_label("Body")).to_be_visible()
