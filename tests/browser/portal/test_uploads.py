"""A file of orders, as a business uploads it: looked at, sent while it watches, and what failed."""

import csv
import io

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete, func, select

from shared.db.models import Account, Order, PortalSession
from shared.web.tokens import hashed
from tests.browser.arrange import faults_here, width_of
from tests.browser.conftest import PASSWORD
from tests.browser.portal.test_portal import Business
from tests.integration.arrange import until

LONG = "W" * 300
ROWS = 40
FILE = (
    "name;email;item_summary;address\n"
    + "".join(f"Ada;ada{number}@shop.example;{number} kettles;here\n" for number in range(ROWS))
    + f";{LONG};=1+1;\n"
)


@pytest.fixture(scope="module")
def services():
    return {"ingress", "portal", "orders", "kyc", "secrets", "notifier", "relay", "audit"}


@pytest.fixture(scope="module")
def variables():
    # So that a file takes more than one step.
    return {"ACCOUNT_ATTEMPTS_PER_MINUTE": "1000", "ACCOUNT_RATE_PER_SECOND": "4"}


@pytest.fixture(scope="module")
def business(browser, running):
    found = Business(browser, running)
    found.registers()
    found.applies()
    yield found
    found.context.close()
    assert found.complaints == []


def choose(page, content=FILE):
    page.goto("/upload")
    chosen = {"name": "orders.csv", "mimeType": "text/csv", "buffer": content.encode()}
    page.get_by_label("A file of orders").set_input_files(chosen)
    page.get_by_role("button", name="Look at it …").click()
    return page.get_by_role("button", name="Send ")


def orders_of(running, email):
    with running.session() as session:
        query = select(func.count(Order.id)).join(Account, Account.id == Order.account_id)
        return session.scalar(query.where(Account.email == email))


def check(page, heading, where):
    expect(page.get_by_role("heading", level=1)).to_contain_text(heading)
    wide = width_of(page)
    assert wide <= page.viewport_size["width"], (where, wide)
    assert faults_here(page, where, None) == []


def press_on(page):
    """As somebody does whose browser runs no scripts."""
    go_on, ended = page.get_by_role("button", name="Go on"), page.locator("[data-ended]")
    expect(go_on.or_(ended)).to_be_visible()
    while ended.count() == 0:
        with page.expect_navigation():
            go_on.click()


def none_of_its_steps(page):
    """Let no step be done that a page asks for by itself; those that it has asked for.

    From before the first: half a second after the page is there it would ask, and some seconds
    later the file is sent.
    """
    asked, body = [], "<!doctype html><title>503</title><main><h1>Nothing was changed.</h1></main>"

    def answer(route):
        asked.append(route.request)
        route.fulfill(status=503, content_type="text/html", body=body)

    page.route("**/upload?*", answer)
    return asked


@pytest.mark.timeout(600)
def test_it_goes_on_by_itself_while_one_watches(business, running):
    page = business.page
    button = choose(page)
    expect(button).to_have_text(f"Send {ROWS} orders: up to {ROWS} emails go out")
    assert orders_of(running, business.email) == 0
    away = none_of_its_steps(page)
    button.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.evaluate("document.querySelector('[role=status]').isTheSame = true")
    until(lambda: page.wait_for_timeout(50) or len(away) >= 2, "it asked again after a 503")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sending orders.csv")
    expect(page.get_by_role("button", name="Go on")).to_be_enabled()
    assert "Nothing was changed" not in page.content()
    page.unroute_all()
    # Nobody presses anything.
    expect(page.locator("[data-ended]")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{ROWS} of {ROWS} were accepted")
    # A screen reader tells what changes in an element, and not one that takes its place.
    assert page.evaluate("document.querySelector('[role=status]').isTheSame")
    until(lambda: orders_of(running, business.email) == ROWS, "all are recorded")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download the rows").click()
    assert saved.value.suggested_filename == "orders.failed.csv"
    named, row = csv.reader(io.StringIO(saved.value.path().read_text("utf-8-sig")), delimiter=";")
    assert row[:3] == ["", LONG, "'=1+1"]
    assert "error" in named
    # The page stays, and so does the button.
    expect(page.get_by_role("button", name="Download the rows")).to_be_enabled()
    # Once more is nothing more.
    choose(page).click()
    expect(page.locator("[data-ended]")).to_be_visible()
    page.goto("/activity")
    expect(page.get_by_role("table")).to_contain_text(f"{ROWS} orders")
    assert page.get_by_text("A file of orders sent").count() == 1
    assert orders_of(running, business.email) == ROWS


@pytest.mark.parametrize("end", ["session", "cookies"])
def test_what_ends_it_is_said(business, browser, running, end):
    """An answer that is another page than the sending has nothing to be put in its place."""
    context = browser.new_context(base_url=running.portal_url)
    page = context.new_page()
    page.goto("/sign-in?next=/upload")
    page.get_by_label("Email address").fill(business.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Upload")
    button = choose(page)
    none_of_its_steps(page)
    button.click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    if end == "session":
        (own,) = [one["value"] for one in context.cookies() if "session" in one["name"]]
        with running.session() as session, session.begin():
            session.execute(delete(PortalSession).where(PortalSession.token_hash == hashed(own)))
    else:
        context.clear_cookies()
    page.unroute_all()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    said = "You are signed out" if end == "session" else "out of date"
    expect(page.get_by_role("heading", level=1)).to_contain_text(said)
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.timeout(600)
def test_every_step_can_be_used_by_everybody_without_scripts(
    business, browser, running, width, scheme
):
    context = browser.new_context(
        base_url=running.portal_url,
        storage_state=business.context.storage_state(),
        color_scheme=scheme,
        viewport={"width": width, "height": 844},
    )
    page = context.new_page()
    page.route("**/*.js*", lambda route: route.abort())  # not by the setting: axe is one too
    button = choose(page)
    check(page, "would be taken", "preview")
    button.click()
    check(page, "Sending orders.csv", "sending")
    press_on(page)
    check(page, "were accepted", "ended")
    choose(page, "naem\nx\n")
    expect(page.get_by_role("alert")).to_contain_text("unknown columns: naem")
    check(page, "Upload orders", "refused")
    context.close()


@pytest.mark.timeout(600)
def test_it_works_without_scripts(business, browser, running):
    context = browser.new_context(base_url=running.portal_url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/upload")
    page.get_by_label("Email address").fill(business.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    choose(page, FILE.replace("kettles", "teapots")).click()
    press_on(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{ROWS} of {ROWS} were accepted")
    context.close()
