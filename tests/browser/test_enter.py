"""Every page of the console, found by its links and looked at once, as everybody may see it.

And Enter in a form never does what has consequences: every form of every page is tried.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from kombu import Connection
from playwright.sync_api import expect
from sqlalchemy import select, text

from services.ops.console.app import PAGES
from services.ops.users import second_factor, users
from services.ops.users.rights import Right
from shared.bus.broker import queue_counts
from shared.bus.contract import topology
from shared.db.models import AuditEntry, EmailDelivery, Order, WebhookSecret
from shared.ids import new_id
from tests.browser.arrange import (
    TYPED,
    a_dead_letter,
    audited,
    faults_here,
    intake,
    park,
    press_enter,
    width_of,
)
from tests.browser.conftest import PASSWORD, listen
from tests.integration.arrange import account, ahead, order_created, publish, publish_raw, until

# Facts that a look at a page, or a sign-in form, leaves.
LOOKING = ("ops.signed_in", "ops.sign_in_failed", "ops.data_viewed")
WORDS = "What was typed here"
# What no page links to: it is shown for a moment, after something was done.
PASSING = {
    "/jobs/{job_id}",
    "/jobs/{job_id}/progress",
    "/accounts/{account_id}/outcomes/{message_id}",
    "/kyc/outcomes/{message_id}",
    "/sign-in/code",
}
ASKED_FIRST = [p for p in PAGES if p.method == "POST" and isinstance(p.needs, Right)]
DOES_NO_HARM = {"/jobs/{job_id}/stop"}  # a press; what was done stays done, and it can begin again
FORMS = """typed => [...document.forms].map((one) => [
    [one.method, one.action, ...[...one.elements].map(
        (each) => each.name + each.type + (each.type === "submit" ? each.textContent : ""))].join(),
    one.querySelectorAll(typed).length,
])"""
QUEUES = "|".join(queue.name for queue in topology.WORK_QUEUES)


@pytest.fixture(scope="module")
def services():
    """Those that would act on it; without the recorder, what was replayed would be seen to wait."""
    return {"ops", "kyc", "secrets", "audit", "relay"}


# Rows that reach beyond their table, which hides the rest; cells in which each line has a letter;
# and the page's own name in the row of pages.
CUT = """() => [
    ...[...document.querySelectorAll("table.cards tbody tr")].filter(
        one => one.scrollWidth > one.clientWidth + 1),
    ...[...document.querySelectorAll("table.cards td")].filter(
        one => one.innerText.trim().length > 5 && one.clientWidth < 40),
    ...[...document.querySelectorAll(".top nav [aria-current]")].filter(
        one => one.getBoundingClientRect().right > innerWidth
            || one.getBoundingClientRect().left < 0),
].map(one => one.innerText.slice(0, 60))"""
WIDE, NARROW = {"width": 1280, "height": 844}, {"width": 390, "height": 844}
LONGEST = "K" * 200


@dataclass(frozen=True)
class Form:
    """One field of one form of one page."""

    url: str
    form: int
    field: int


def one_of_each(running):
    with running.session() as session:
        account(session, status="pending")
        business = account(session, status="approved")
        account(session, status="rejected")
        account(session, status="revoked", company_name=LONGEST)
        session.add(
            WebhookSecret(
                account_id=business.id,
                key_hash=business.id.bytes,
                sealed=b"x",
                state="active",
                expires_at=ahead(days=80),
            )
        )
        session.add(
            EmailDelivery(
                fact_id=new_id(),
                subject_id=str(business.id),
                recipient=business.email,
                template="one_time_code",
                message_id="<x@order-fellow.example>",
                state="undeliverable",
            )
        )
        session.commit()
    a_dead_letter(running, order_created(), body=b"{}")
    park(running, order_created(), exchange="gone")
    publish_raw(running.amqp_url, "retry.1h", "orders.intake", b"{}", delivery_mode=2)
    now, id_ = datetime.now(UTC), new_id()
    with running.session() as session, session.begin():
        session.add(
            Order(
                id=id_,
                account_id=business.id,
                customer_name="Zoë",
                customer_email="zoe@shop.example",
                customer_phone="",
                item_summary="a kettle",
                address="Lagos",
                tracking_status="PENDING",
                status_at=now,
                status_event_id=id_,
                accepted_at=now,
            )
        )
    with running.session() as session, session.begin():
        ada = users.verify(session, "ada", PASSWORD)
        second_factor.offer(session, ada.id, "a session")
    publish(running.amqp_url, intake(order_created()))


def state(running):
    """Whatever may not change: the books, the broker, the audit log; and what waits to be told."""
    with running.session() as session:
        books = [
            session.execute(text(query)).all()
            for query in (
                "SELECT id, status, reason FROM kyc_applications ORDER BY id",
                "SELECT id, state FROM webhook_secrets ORDER BY id",
                "SELECT sequence, body, parked_at FROM outbox"
                f" WHERE type NOT IN {LOOKING} ORDER BY sequence",
                "SELECT user_id, offered, confirmed_at FROM ops_second_factors",
                "SELECT message_id FROM inbox WHERE consumer <> 'services.audit' ORDER BY 1",
                "SELECT id, note FROM kyc_notes ORDER BY id",
            )
        ]
        told = session.execute(
            select(AuditEntry.type, AuditEntry.sequence)
            .where(AuditEntry.type.not_in(LOOKING))
            .order_by(AuditEntry.sequence)
        ).all()
    with Connection(running.amqp_url) as connection:
        channel = connection.default_channel
        depths = {
            queue.name: queue_counts.of(channel, queue.name).ready
            for queue in topology.QUEUES
            if queue is not topology.JOURNAL  # which has the signing in as well
        }
    return books, told, depths


def faults_in(page):
    """What is wrong with how a page is shown: at both widths, by day and by night.

    One that is in the row of pages is loaded on the narrow screen, where its script moves the row.
    Colours differ in the dark, and nothing else.
    """
    path, found, size = page.url, [], page.viewport_size
    for screen in (NARROW, WIDE):
        page.set_viewport_size(screen)
        found += faults_here(page, f"{path} at {screen['width']}", None)
        if (wide := width_of(page)) > screen["width"]:
            found.append((path, f"{wide} px wide at {screen['width']}"))
        found += [(path, "cut", said) for said in page.evaluate(CUT)]
    page.emulate_media(color_scheme="dark")
    found += faults_here(page, f"{path} in the dark", ["color-contrast"])
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(size)
    return found


@dataclass(frozen=True)
class Crawled:
    """What was found, and how everything stood before."""

    before: object
    urls: list[str]
    tried: list[Form]
    faults: list[object]


@pytest.fixture(scope="module")
def crawled(browser, running, signed_in):
    one_of_each(running)
    until(lambda: audited(running, "ops.signed_in", "ada"), "the signing in is audited")
    until(lambda: len(state(running)[0][2]) == 1, "nothing is under way but what is parked")
    before = state(running)
    context = browser.new_context(base_url=running.url, storage_state=signed_in, viewport=NARROW)
    page = context.new_page()
    complaints = listen(page)
    yield Crawled(before, *crawl(page, running.url))
    context.close()
    assert complaints == []


def crawl(page, base):
    """Every page that can be reached, every field of every form in them, and what is wrong.

    One of each sort.
    """
    found, fields, looked_at, faults = {}, {}, set(), []
    ahead = ["/", "/sign-in", "/nowhere", "/find?q=zoe@shop.example", f"/find?q={LONGEST[:50]}"]
    while ahead:
        url = ahead.pop(0)
        parts = urlsplit(url)
        asked = parse_qs(parts.query, keep_blank_values=True)
        # The audit log links to itself by each word in it.
        kind = (parts.path, tuple(sorted(asked)) if parts.path == "/audit" else str(asked))
        if kind in found or parts.path.endswith(".csv"):
            continue
        page.goto(url)
        found[kind] = url
        of = routes_of([url]) - {"/accounts/{account_id}"} or {parts.path}
        if (sort := (*of, *sorted(asked))) not in looked_at:
            looked_at.add(sort)
            faults += faults_in(page)
        links = page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)")
        ahead += [link.removeprefix(base) for link in links if link.startswith(base + "/")]
        for form, (what, count) in enumerate(page.evaluate(FORMS, TYPED)):
            # The same form of another page, business or queue is the same.
            sort = re.sub(rf"[0-9a-f-]{{36}}|{QUEUES}", "", what)
            for field in range(count):
                fields.setdefault((sort, field), Form(url, form, field))
    return list(found.values()), list(fields.values()), faults


def type_and_press_enter(page, tried):
    def is_there():
        page.goto(tried.url)
        return page.locator("form").count() > tried.form

    # Of a dead queue whose letters somebody else has in hand, as the console's own look, no page
    # has any.
    until(is_there, f"{tried} is there")
    form = page.locator("form").nth(tried.form)
    # What is ticked or filled in beside it must not matter.
    for box in form.locator("input[type=checkbox]").all():
        box.check()
    for other in form.locator("input[required]").all():
        other.fill(WORDS)
    field = form.locator(TYPED).nth(tried.field)
    kind = field.evaluate("one => one.type")
    field.focus()
    if kind not in ("checkbox", "date", "select-one"):
        page.keyboard.type(WORDS)
    press_enter(page, kind)


def routes_of(urls):
    patterns = {
        page.path: re.compile(re.sub(r"\{\w+\}", "[^/]+", page.path))
        for page in PAGES
        if page.method == "GET"
    }
    paths = [urlsplit(url).path for url in urls]
    return {route for route, pattern in patterns.items() if any(map(pattern.fullmatch, paths))}


@pytest.mark.timeout(600)
def test_every_page_can_be_seen_by_everybody_and_nothing_in_it_is_cut(crawled):
    assert crawled.faults == []


@pytest.mark.timeout(600)
def test_enter_in_any_field_of_any_form_does_nothing_that_was_not_asked_about(
    page, running, crawled
):
    before = crawled.before
    # Nothing is left out.
    assert routes_of(crawled.urls) >= {p.path for p in PAGES if p.method == "GET"} - PASSING - {
        "/audit.csv"
    }
    asked, faults = set(), []
    for each in crawled.tried:
        type_and_press_enter(page, each)
        # The page that names it has nothing to type into.
        if page.locator("input[name=sure]").count():
            title = page.get_by_role("heading", level=1).text_content()
            faults += [] if title in asked else faults_in(page)
            asked.add(title)
            assert page.locator("main").locator(TYPED).count() == 0
        with suppress(AssertionError):
            until(lambda: state(running) == before, "nothing is under way")
        assert state(running) == before, f"changed by {each}"
    assert any(title.startswith("Reject Kettle & Co?") for title in asked), asked
    assert any(title.startswith("Revoke Kettle & Co?") for title in asked), asked
    assert any(title.startswith("Discard 1 dead letter of orders.intake?") for title in asked)
    assert any(title.startswith("Discard this order.created?") for title in asked)
    # A command that came all the same would have come before this one: then it is seen.
    page.goto("/kyc")
    page.get_by_role("button", name=re.compile("^Approve ")).first.click()
    page.get_by_role("button", name="Approve Kettle & Co").click()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    faults += faults_in(page)
    assert faults == []
    until(lambda: audited(running, "kyc.approved", "ada"), "it is audited")
    with running.session() as session:
        facts = session.scalars(select(AuditEntry.type).where(AuditEntry.type.like("kyc.%"))).all()
    assert facts == ["kyc.approved"]


def test_what_has_consequences_is_done_without_scripts(browser, running, signed_in):
    """Behind all that was looked at: it changes what is there."""
    context = browser.new_context(
        base_url=running.url, storage_state=signed_in, java_script_enabled=False
    )
    page = context.new_page()
    for _ in range(2):
        a_dead_letter(running, order_created(), body=b"{}")
    for act, done in (("Replay", "1 message replayed."), ("Discard", "1 message discarded.")):
        page.goto("/dead/orders.intake")
        page.locator("input[name=id]").first.check()
        if act == "Discard":
            page.get_by_label("Reason for discarding").fill("It is a test.")
        page.get_by_role("button", name=f"{act} ticked").click()
        page.get_by_role("button", name=f"{act} 1 dead letter").click()
        # To the queue once it is done or, where that takes longer, to a page of its own.
        page.wait_for_url(re.compile(r"/dead/orders\.intake(\?|$)|/jobs/"))
        while "/jobs/" in page.url and not page.locator("[data-ended]").count():
            page.reload()
        expect(page.get_by_role("status")).to_have_text(done)
    with running.session() as session:
        business = account(session, status="pending", company_name="No Scripts Ltd")
    page.goto("/kyc")
    page.locator(f"#account-{business.id}").get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve No Scripts Ltd").click()
    page.wait_for_url(re.compile(r"/kyc\?"))

    def is_approved():
        page.goto(f"/accounts/{business.id}")
        return "KYC approved" in page.get_by_role("heading", level=1).inner_text()

    until(is_approved, "it is approved")
    context.close()


@pytest.mark.parametrize("changes", ASKED_FIRST, ids=lambda p: p.path)
def test_what_changes_something_asks_first(changes):
    assert changes.asks is not None or changes.path in DOES_NO_HARM
