"""Dead letters put right in the console, and what everything that acts leaves behind."""

import os
import re
import signal
import time
from datetime import UTC, datetime

import httpx
import pytest
from msgspec.structs import replace
from playwright.sync_api import expect
from sqlalchemy import func, select

from services.ops import parked_messages as outbox_messages
from services.ops.console.app import PAGES
from services.ops.console.web.mount import SESSION
from services.ops.users.rights import Right
from shared.bus.contract.events import encode
from shared.db.models import AuditEntry, KycApplication, OpsTrouble, Order
from shared.ids import derived_id, new_id
from shared.web.tokens import form_token
from tests.browser.arrange import (
    a_dead_letter,
    audited,
    customer,
    emails,
    intake,
    is_recorded,
    is_told,
    park,
)
from tests.browser.conftest import answers
from tests.integration.arrange import (
    PATIENCE,
    account,
    ago,
    depth,
    order_created,
    publish,
    publish_raw,
    until,
)


def test_a_dead_letter_is_replayed_and_delivered(page, running):
    order = order_created(customer_details=customer("dead"))
    id_ = a_dead_letter(running, order)
    page.goto("/dead/orders.intake")
    expect(page.locator("table")).to_contain_text("it was so")
    page.get_by_label(f"Tick {id_}").check()
    page.get_by_role("button", name="Replay ticked").click()
    expect(page.get_by_role("listitem")).to_contain_text(id_)
    page.get_by_role("button", name="Replay 1 dead letter").click()
    expect(page.get_by_role("status")).to_have_text("1 message replayed.")
    until(lambda: is_recorded(running, order), "recorded")
    until(lambda: is_told(running, order), "delivered")
    until(lambda: audited(running, "ops.dead_letter_replayed", "ada"), "it is audited")


def test_a_malformed_letter_is_mended(page, running):
    order = order_created(customer_details=customer("mended"))
    id_ = a_dead_letter(running, order, body=b'{"order_id": "oh"}')
    page.goto(f"/dead/orders.intake/letter?id={id_}")
    page.get_by_label("Body").fill('{"order_id": 7}')
    page.get_by_role("button", name="Replay with this body").click()
    expect(page.get_by_role("alert")).to_contain_text("This is no order.created")
    expect(page.get_by_label("Body")).to_have_value('{"order_id": 7}')
    page.get_by_label("Body").fill(encode(order).decode())
    page.get_by_role("button", name="Replay with this body").click()
    expect(page.locator("pre")).to_contain_text(str(order.order_id))
    page.get_by_role("button", name="Replay this order.created").click()
    expect(page.get_by_role("status")).to_contain_text(id_)
    until(lambda: is_told(running, order), "delivered")


def test_letters_are_discarded_with_a_reason_after_a_question(page, running):
    for _ in range(3):
        a_dead_letter(running, order_created(), body=b"{}")
    page.goto("/dead/orders.intake?reason=it+was+so")
    page.get_by_label("Reason for discarding").fill("A test of ours.")
    page.get_by_role("button", name="Discard all that fit").click()
    expect(page.locator("main")).to_contain_text("A test of ours.")
    page.get_by_role("button", name="Discard 3 dead letters").click()
    expect(page.get_by_role("status")).to_have_text("3 messages discarded.")
    assert depth(running.amqp_url, "orders.intake.dead") == 0
    until(lambda: audited(running, "ops.dead_letter_discarded", "ada"), "it is audited")


def test_what_waits_on_the_ladder_is_retried_now(page, running):
    order = order_created(customer_details=customer("ladder"))
    message = intake(order)
    publish_raw(
        running.amqp_url,
        "retry.1h",
        "orders.intake",
        message.body,
        message_id=message.message_id,
        type=message.type,
        delivery_mode=2,
        application_headers=message.headers(),
    )
    page.goto("/dead/orders.intake")
    page.get_by_role("button", name="Retry now").click()
    page.get_by_role("button", name="Try 1 message now").click()
    expect(page.get_by_role("status")).to_have_text("1 message put back.")
    until(lambda: is_told(running, order), "delivered")


def test_a_console_killed_in_the_middle_of_a_replay_loses_and_doubles_nothing(page, running):
    count = 1500
    orders = [order_created() for _ in range(count)]
    publish(
        running.amqp_url,
        *(replace(intake(order), exchange="dead", routing_key="orders.intake") for order in orders),
    )
    until(lambda: depth(running.amqp_url, "orders.intake.dead") >= count, "they lie there")
    page.goto("/dead/orders.intake")
    page.get_by_role("button", name="Replay all").click()
    sure = page.get_by_role("button", name=re.compile("^Replay 1"))
    expect(sure).to_be_visible()
    running.books.lag = 0.5  # or it may be done before anybody sees it at work
    sure.click(no_wait_after=True)
    until(lambda: depth(running.amqp_url, "orders.intake.dead") < count, "it is at work")
    os.killpg(running.supervisor.pid("ops"), signal.SIGKILL)
    running.books.lag = 0.0
    until(lambda: running.supervisor.watch() or answers(f"{running.url}/healthz"), "it is back")
    until(lambda: is_settled(running), "the broker has back what the dead one had in hand")
    page.goto("/dead/orders.intake")
    page.get_by_role("button", name="Replay all").click()
    page.get_by_role("button", name=re.compile("^Replay ")).click()
    page.get_by_text("messages replayed.").wait_for()
    ids = {order.order_id for order in orders}

    def recorded():
        with running.session() as session:
            return set(session.scalars(select(Order.id).where(Order.id.in_(ids))))

    until(lambda: recorded() == ids, "every order is recorded")
    until(lambda: emails(running, ids) == dict.fromkeys(ids, 1), "each was told once")
    assert depth(running.amqp_url, "orders.intake.dead") == 0


def is_settled(running) -> bool:
    before = depth(running.amqp_url, "orders.intake.dead")
    time.sleep(0.5)
    return depth(running.amqp_url, "orders.intake.dead") == before > 0


def an_application(running):
    with running.session() as session:
        return f"/kyc/{account(session, status='pending').id}", {"decision": "approve"}


def an_application_to_note(running):
    with running.session() as session:
        applicant = account(session, status="pending")
        id_ = session.scalar(
            select(KycApplication.id).where(KycApplication.account_id == applicant.id)
        )
        return f"/kyc/{applicant.id}", {"application_id": str(id_), "note": "Called them."}


def a_business(running):
    with running.session() as session:
        return f"/accounts/{account(session, status='approved').id}", {"command": "replace"}


def a_letter(running):
    died = ago(hours=1)
    id_ = a_dead_letter(running, order_created(), body=b"{}", died=died)
    return "/dead/orders.intake", {
        "id": id_,
        "death": str(derived_id("death", "orders.intake", id_, died)),
    }


def a_waiting_message(running):
    publish_raw(running.amqp_url, "retry.1h", "orders.intake", b"{}", delivery_mode=2)
    return "/dead/orders.intake", {}


def a_parked_message(running):
    number = park(running, order_created(), exchange="gone")
    with running.session() as session:
        digest = outbox_messages.find(session, number).digest
    return f"/outbox/messages/{number}", {"digest": digest}


def parked_messages(running):
    return "/outbox/retry", {"up_to": str(park(running, order_created(), exchange="gone"))}


def a_trouble(running):
    id_, now = new_id(), datetime.now(UTC)
    with running.session() as session:
        session.add(
            OpsTrouble(
                id=id_,
                key=f"x: {id_}",
                level="down",
                about="x",
                text="x",
                began_at=now,
                seen_at=now,
            )
        )
        session.commit()
    return f"/troubles/{id_}", {}


# What each page that changes something is tried with, and the fact that it must leave behind.
ACTS = {
    "/kyc/{account_id}": (an_application, {}, "ops.command_published"),
    "/kyc/{account_id}/notes": (an_application_to_note, {}, "ops.kyc_note_added"),
    "/accounts/{account_id}": (a_business, {}, "ops.command_published"),
    "/troubles/{trouble_id}/mute": (a_trouble, {"for": "8h"}, "ops.trouble_changed"),
    "/troubles/{trouble_id}/unmute": (a_trouble, {}, "ops.trouble_changed"),
    "/dead/{queue}/replay": (a_letter, {}, "ops.dead_letter_replayed"),
    "/dead/{queue}/discard": (a_letter, {"why": "a test"}, "ops.dead_letter_discarded"),
    "/dead/{queue}/edit": (a_letter, {"type": "order.created"}, "ops.dead_letter_replayed"),
    "/dead/{queue}/retry": (a_waiting_message, {}, "ops.retried_now"),
    "/outbox/retry": (parked_messages, {}, "ops.outbox_changed"),
    "/outbox/messages/{number}/retry": (a_parked_message, {}, "ops.outbox_changed"),
    "/outbox/messages/{number}/discard": (
        a_parked_message,
        {"why": "a test"},
        "ops.outbox_changed",
    ),
    "/outbox/messages/{number}/edit": (a_parked_message, {}, "ops.outbox_changed"),
}
WORK_ON_ONES_OWN = {"/jobs/{job_id}/stop"}  # changes nothing but what it stops to do


@pytest.mark.parametrize(
    "path",
    [
        page.path
        for page in PAGES
        if page.method == "POST"
        and isinstance(page.needs, Right)
        and page.path not in WORK_ON_ONES_OWN
    ],
)
def test_every_change_has_its_row_in_the_audit_log(running, signed_in, path):
    prepare, more, fact = ACTS[path]
    where, form = prepare(running)
    with running.session() as session:
        before = session.scalar(select(func.max(AuditEntry.sequence))) or 0
    cookies = {cookie["name"]: cookie["value"] for cookie in signed_in["cookies"]}
    form |= more | {"form_token": form_token(cookies[SESSION]), "sure": "yes"}
    if path.endswith("/edit"):
        form["body"] = encode(order_created()).decode()
    suffix = path.rpartition("}")[2] if "}" in path else ""
    answer = httpx.post(
        f"{running.url}{where}{suffix}", data=form, cookies=cookies, timeout=PATIENCE
    )
    assert answer.status_code == 303, answer.text

    def row():
        with running.session() as session:
            return session.execute(
                select(AuditEntry.actor, AuditEntry.type).where(
                    AuditEntry.sequence > before, AuditEntry.type == fact
                )
            ).first()

    assert until(row, f"a row of {fact}").actor.startswith("ada")
