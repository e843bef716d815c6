"""Enter in a form never does what has consequences: every form of every page is tried."""

import re
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
from shared.db.models import AuditEntry, Order
from shared.ids import new_id
from tests.browser.arrange import TYPED, a_dead_letter, audited, intake, park, press_enter
from tests.browser.conftest import PASSWORD
from tests.integration.arrange import account, order_created, publish, publish_raw, until

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
        account(session, status="revoked")
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


def crawl(page, base):
    """Every page that can be reached, and every field of every form in them, one of each sort."""
    found, fields, ahead = {}, {}, ["/", "/sign-in", "/find?q=zoe@shop.example"]
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
        links = page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)")
        ahead += [link.removeprefix(base) for link in links if link.startswith(base + "/")]
        for form, (what, count) in enumerate(page.evaluate(FORMS, TYPED)):
            # The same form of another page, business or queue is the same.
            sort = re.sub(rf"[0-9a-f-]{{36}}|{QUEUES}", "", what)
            for field in range(count):
                fields.setdefault((sort, field), Form(url, form, field))
    return list(found.values()), list(fields.values())


def type_and_press_enter(page, tried):
    page.goto(tried.url)
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
def test_enter_in_any_field_of_any_form_does_nothing_that_was_not_asked_about(page, running):
    one_of_each(running)
    until(lambda: audited(running, "ops.signed_in", "ada"), "the signing in is audited")
    until(lambda: len(state(running)[0][2]) == 1, "nothing is under way but what is parked")
    before = state(running)
    urls, tried = crawl(page, running.url)
    # Nothing is left out.
    assert routes_of(urls) >= {p.path for p in PAGES if p.method == "GET"} - PASSING - {
        "/audit.csv"
    }
    asked = set()
    for each in tried:
        type_and_press_enter(page, each)
        # The page that names it has nothing to type into.
        if page.locator("input[name=sure]").count():
            asked.add(page.get_by_role("heading", level=1).text_content())
            assert page.locator("main").locator(TYPED).count() == 0
        until(lambda each=each: state(running) == before, f"nothing was done by {each}")
    assert any(title.startswith("Reject Kettle & Co?") for title in asked), asked
    assert any(title.startswith("Revoke Kettle & Co?") for title in asked), asked
    assert any(title.startswith("Discard 1 dead letter of orders.intake?") for title in asked)
    assert any(title.startswith("Discard this order.created?") for title in asked)
    # A command that came all the same would have come before this one: then it is seen.
    page.goto("/kyc")
    page.get_by_role("button", name="Approve …").first.click()
    page.get_by_role("button", name="Approve Kettle & Co").click()
    expect(page.locator("[data-outcome='carried out']")).to_contain_text("is approved")
    until(lambda: audited(running, "kyc.approved", "ada"), "it is audited")
    with running.session() as session:
        facts = session.scalars(select(AuditEntry.type).where(AuditEntry.type.like("kyc.%"))).all()
    assert facts == ["kyc.approved"]


@pytest.mark.parametrize("changes", ASKED_FIRST, ids=lambda p: p.path)
def test_what_changes_something_asks_first(changes):
    assert changes.asks is not None or changes.path in DOES_NO_HARM
