"""What the tests before the browser arrange, and what they look up behind it."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from uuid import UUID

from msgspec.structs import replace
from sqlalchemy import select, text

from shared.bus import outbox
from shared.bus.contract.events import CustomerDetails, OrderCreated, encode
from shared.bus.contract.message import Message, message_for
from shared.db.models import AuditEntry, EmailDelivery, Order
from tests.integration.arrange import ago, depth, publish_raw, until

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
TYPED = (
    "input:not([type=hidden]):not([type=checkbox]):not([type=date]), textarea, "
    "input[type=checkbox], input[type=date], select"
)
# What Enter sends, sent by hand: so that it is known when, and nothing that a script of the page
# would stop is stopped.
CAUGHT = """addEventListener("submit", (event) => {
    event.stopImmediatePropagation();
    if (window.go) return;
    event.preventDefault();
    window.sent = [event.target, event.submitter];
}, true)"""
DIED = {"x-reason": "Malformed: it was so", "x-attempt": 3}


def intake(order: OrderCreated) -> Message:
    """The message that the ingress would publish."""
    return message_for(order, source="tests", correlation_id=order.order_id)


def a_dead_letter(
    running, order: OrderCreated, body: bytes | None = None, died: datetime | None = None
) -> str:
    """A message that died in orders.intake; its id.

    It died an hour ago unless it is said when: what is months old the console discards.
    """
    died = died or ago(hours=1)
    message = message_for(order, source="tests", correlation_id=order.order_id)
    before = depth(running.amqp_url, "orders.intake.dead")
    publish_raw(
        running.amqp_url,
        "dead",
        "orders.intake",
        encode(order) if body is None else body,
        message_id=message.message_id,
        type=message.type,
        correlation_id=message.correlation_id,
        delivery_mode=2,
        application_headers=message.headers() | DIED | {"x-failed-at": died.isoformat()},
    )
    until(lambda: depth(running.amqp_url, "orders.intake.dead") > before, "it lies there")
    return message.message_id


def is_recorded(running, order: OrderCreated) -> bool:
    with running.session() as session:
        return session.get(Order, order.order_id) is not None


def is_told(running, order: OrderCreated) -> bool:
    address = order.customer_details.email
    return any(address in mail["To"] for mail in running.mail.maildir.emails())


def emails(running, ids) -> Counter:
    """How many emails were sent about each of some orders."""
    with running.session() as session:
        wanted = [str(id_) for id_ in ids]
        found = session.scalars(
            select(EmailDelivery.subject_id).where(EmailDelivery.subject_id.in_(wanted))
        )
        return Counter(UUID(subject) for subject in found)


def audited(running, type_: str, by: str) -> bool:
    with running.session() as session:
        query = select(AuditEntry.event_id).where(
            AuditEntry.type == type_, AuditEntry.actor.startswith(by)
        )
        return session.execute(query).first() is not None


def customer(name: str) -> CustomerDetails:
    return CustomerDetails(name="Zoë Ade", email=f"{name}@shop.example")


def park(running, order, **changes):
    """A message that the relay cannot publish; the number of its row, once it is parked."""
    message = replace(intake(order), **changes)
    with running.session() as session:
        outbox.add(session, [message])
        session.commit()
    return until(lambda: number_of(running, message), "it is parked")


def number_of(running, message):
    with running.session() as session:
        return session.execute(
            text("SELECT sequence FROM outbox WHERE message_id = :id AND parked_at IS NOT NULL"),
            {"id": message.message_id},
        ).scalar()


def faults_of(page, path, rules):
    """The serious faults of access that axe finds in a page."""
    page.goto(path)
    return faults_here(page, path, rules)


def faults_here(page, path, rules):
    """Those of the page that is open."""
    page.wait_for_load_state()
    page.evaluate(AXE)
    options = {"runOnly": rules} if rules else {}
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        (path, fault["id"], [node["target"] for node in fault["nodes"]])
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
    ]


def width_of(page):
    """How wide a page is, in pixels, once it is there: after a click it has but begun to load."""
    page.wait_for_load_state()
    return page.evaluate("document.documentElement.scrollWidth")


def press_enter(page, kind):
    """Press Enter in the field that has the focus, and see what comes of it.

    Args:
        page: the tab.
        kind: the type of the field.
    """
    page.evaluate(CAUGHT)
    page.keyboard.press("Enter")
    if kind == "select-one":
        page.keyboard.press("Escape")
    if page.evaluate("!!window.sent"):
        with page.expect_navigation():
            page.evaluate("window.go = true; window.sent[0].requestSubmit(window.sent[1])")
