"""An email about a test order, as the mail server gets it: to its business, whatever is written."""

import json
import time
from email.utils import parseaddr

import pytest
from sqlalchemy import select

from services.notifier.__main__ import wire
from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.contract.events import decode
from shared.db.models import EmailDelivery, OutboxMessage
from shared.ids import new_id
from shared.intake import bodies
from stack.mailbox import text_of
from tests.integration.arrange import account, consuming, publish_raw, received

OWNER = "owner@kettle.example"
VICTIM = "victim@elsewhere.example"
HEADERS = f"x\r\nBcc: {VICTIM}\r\n\r\nRCPT TO:<{VICTIM}>\r\n.\r\nMAIL FROM:<a@b.example>"


@pytest.fixture
def config(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port), smtp_timeout="5")


def said(business_id, /, **changes):
    customer = {"name": "Zoë", "email": VICTIM, "phone": "+234"} | changes.get("customer", {})
    body = {"customer_details": customer, "item_summary": "a kettle", "address": "Lagos"} | changes
    _, message = bodies.read(
        json.dumps(body).encode(), business_id, time.time(), None, is_test=True
    )
    return decode(message.type, message.body)


def told(db, config, amqp_url, *events):
    """Record events and send the emails about them; their facts are told as the relay would."""
    record(
        db,
        [
            received(event, id=event.order_id if hasattr(event, "address") else new_id())
            for event in events
        ],
        lanes=Lanes(1_000, 100),
        unknown=Unknown(1_000),
    )
    db.commit()
    for row in db.scalars(select(OutboxMessage).order_by(OutboxMessage.sequence)).all():
        publish_raw(
            amqp_url, row.exchange, row.routing_key, bytes(row.body),
            type=row.type, message_id=str(row.message_id), correlation_id=row.correlation_id,
        )  # fmt: skip
        db.delete(row)
    db.commit()
    with consuming(config, *wire(config).subscriptions):
        pass


ADVERSARIAL = (
    {},
    {"customer": {"email": "VICTIM@elsewhere.example"}},
    {"customer": {"email": f" {VICTIM}\n"}},
    {"customer": {"name": f"<{VICTIM}>"}},
    {"customer": {"name": f'"{VICTIM}, ' + VICTIM}},
    {"customer": {"name": f"=?utf-8?q?x=0D=0ABcc:_{VICTIM}?="}},
    {"customer": {"phone": VICTIM}},
    {"item_summary": HEADERS},
    {"address": HEADERS},
    {"item_summary": "{{ fact.email }} {% include '/etc/passwd' %}"},
    {"email": VICTIM, "to": VICTIM, "is_test": False, "mode": "live", "account_id": str(new_id())},
)


@pytest.mark.parametrize("changes", ADVERSARIAL)
def test_nobody_but_the_business_is_mailed(config, mailbox, db, engine, amqp_url, changes):
    recipients = []
    mailbox.handler.respond = lambda address: recipients.append(address) or None
    business = account(db, email=OWNER)
    order = said(business.id, **changes)
    of_it = {"order_id": str(order.order_id)}
    moved, gone = (
        decode(message.type, message.body)
        for _, message in (
            bodies.read(
                json.dumps(of_it | body).encode(), business.id, time.time(), None, is_test=True
            )
            for body in (
                {
                    "type": "order.status_changed",
                    "tracking_status": "IN_TRANSIT",
                    "note": HEADERS,
                    "customer_email": VICTIM,
                },
                {"type": "order.cancelled", "reason": HEADERS, "email": VICTIM},
            )
        )
    )
    told(db, config, amqp_url, order, moved, gone)
    assert recipients == [OWNER] * 3
    emails = mailbox.maildir.emails()
    assert len(emails) == 3
    for email in emails:
        assert parseaddr(email["To"])[1] == OWNER
        assert VICTIM not in str(email["To"])
        assert email["Subject"].startswith("TEST: ")
        assert not [name for name in ("Cc", "Bcc", "Reply-To") if email[name]]
        assert "This is a test order" in text_of(email)
        assert "This is a test order" in email.get_body(("html",)).get_content()
    with engine.connect() as connection:
        rows = connection.execute(select(EmailDelivery.recipient, EmailDelivery.template)).all()
    assert {row.recipient for row in rows} == {OWNER}
    assert all(row.template.startswith("test_") for row in rows)
