"""`fellow trail` and `fellow account`: what happened, from what the services wrote down."""

import json
from datetime import UTC, datetime
from email.utils import parseaddr

import pytest
from kombu import Connection
from sqlalchemy.orm import Session

from services.notifier.__main__ import wire as notifying
from services.ops import account_trail, trail
from services.orders.__main__ import wire as recording
from shared.bus.events import OrderCancelled, TrackingStatus
from shared.bus.message import message_for
from shared.db.models import OutboxMessage, WebhookRequest, WebhookSecret
from shared.ids import derived_id, new_id
from tests.integration.arrange import (
    account,
    consuming,
    order_created,
    publish,
    publish_raw,
    status_changed,
)
from tests.integration.ops.test_cli import fellow


@pytest.fixture
def settings(settings, configure, mailbox):
    return configure(smtp_port=str(mailbox.port))


def sent(settings, *events):
    messages = [message_for(e, source="tests", correlation_id=e.order_id) for e in events]
    publish(settings.amqp_url, *messages)
    return messages


def relayed(settings, db):
    """What the relay would publish."""
    db.rollback()
    rows = db.query(OutboxMessage).order_by(OutboxMessage.sequence).all()
    for row in rows:
        publish_raw(
            settings.amqp_url, row.exchange, row.routing_key, bytes(row.body),
            type=row.type, message_id=str(row.message_id), correlation_id=row.correlation_id,
        )  # fmt: skip
        db.delete(row)
    db.commit()


def lived(settings, db, business):
    """An order with an update, both recorded and mailed; and an update that came too late."""
    order = order_created(business.id)
    update = status_changed(order, TrackingStatus.IN_TRANSIT, "on its way")
    with consuming(settings, *recording(settings).subscriptions):
        first, second = sent(settings, order, update)
    relayed(settings, db)
    with consuming(settings, *notifying(settings).subscriptions):
        pass
    return order, first, second


def test_an_order_from_the_sender_to_the_last_email(settings, db, engine):
    business = account(db, status="approved")
    order, _, second = lived(settings, db, business)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        found = trail.order_trail(session, order.order_id, connection=bus)
    assert found.company_name == "Kettle & Co"
    assert found.tracking_status == "IN_TRANSIT"
    assert found.waiting == ()
    assert sorted(step.what for step in found.steps) == [
        "accepted", "email", "email", "recorded", "status", "status",
    ]  # fmt: skip
    (moved,) = [step for step in found.steps if step.text == "IN_TRANSIT: on its way"]
    assert str(moved.event_id) == second.message_id
    assert [step.at for step in found.steps] == sorted(step.at for step in found.steps)
    emails = [step.text for step in found.steps if step.what == "email"]
    assert emails == [
        "order_received to zoe@shop.example: sent",
        "order_status to zoe@shop.example: sent",
    ]


def test_what_still_waits(settings, db, engine):
    order = order_created()
    sent(settings, order)
    late = status_changed(order, TrackingStatus.DELIVERED)
    for exchange, event, reason in (
        ("retry.1h", late, "Retry: this account has no order"),
        ("dead", order, "Malformed: x"),
    ):
        m = message_for(event, source="tests", correlation_id=order.order_id)
        publish_raw(
            settings.amqp_url, exchange, "orders.intake", m.body, type=m.type,
            message_id=m.message_id, correlation_id=m.correlation_id,
            application_headers={"x-attempt": 5, "x-reason": reason,
                                 "x-failed-at": "2026-11-24T10:00:00+00:00"},
        )  # fmt: skip
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        found = trail.order_trail(session, order.order_id, connection=bus)
        assert not found.is_recorded
        assert [(w.place, w.queue, w.attempts, w.reason) for w in found.waiting] == [
            ("retry.1h", "orders.intake", 5, "Retry: this account has no order"),
            ("orders.intake.dead", "orders.intake", 5, "Malformed: x"),
        ]
        assert trail.order_trail(session, new_id(), connection=bus) is None
    with consuming(settings, *recording(settings).subscriptions):
        pass
    with Session(engine) as session:
        found = trail.order_trail(session, order.order_id)
    assert [(w.place, w.type) for w in found.waiting] == [("outbox", "order.recorded")]


def test_by_the_customers_address_and_by_the_requests_key(settings, db, engine):
    business = account(db, status="approved")
    first = order_created(business.id, order_id=derived_id("order", business.id, "key-1"))
    second = order_created(business.id)
    with consuming(settings, *recording(settings).subscriptions):
        (message, _) = sent(settings, first, second)
    with Session(engine) as session:
        found = trail.search(session, " ZOE@shop.example ")
        assert {order.order_id for order in found} == {first.order_id, second.order_id}
        assert trail.search(session, "nobody@shop.example") == []
        assert trail.search(session, "key-2") == []
        assert [order.order_id for order in trail.search(session, "key-1")] == [first.order_id]
    for accepted, code, event_id in (
        (True, "accepted", message.message_id),
        (False, "rate_limited", None),
    ):
        db.add(
            WebhookRequest(
                at=datetime.now(UTC), account_id=business.id, accepted=accepted, code=code,
                event_type="order.created", event_id=event_id, idempotency_key="key-1",
                scheme="x", latency_us=1, client_address="192.0.2.7",
            )
        )  # fmt: skip
    db.commit()
    with Session(engine) as session:
        found = trail.order_trail(session, first.order_id)
        assert "order.created from 192.0.2.7: accepted, key key-1" in {s.text for s in found.steps}
        account_ = account_trail.account_trail(session, business.id)
        assert account_.refusals == {"rate_limited": 1}


def test_a_cancellation_and_what_does_not_count_after_it(settings, db, engine):
    business = account(db)
    order = order_created(business.id)
    cancelled = OrderCancelled(order_id=order.order_id, account_id=business.id, reason="gone")
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, order, cancelled)
    with consuming(settings, *recording(settings).subscriptions):
        sent(settings, status_changed(order, TrackingStatus.OUT_FOR_DELIVERY))
    with Session(engine) as session:
        steps = trail.order_trail(session, order.order_id).steps
    found = {step.text: step.counts for step in steps if step.what == "status"}
    assert found == {
        "PENDING": True,
        "CANCELLED: gone": True,
        "OUT_FOR_DELIVERY, does not count": False,
    }


def test_an_account(settings, db, engine):
    business = account(db, status="approved", number="RC 17/2")
    db.add(
        WebhookSecret(account_id=business.id, key_hash=b"x", sealed=b"x", state="active",
                      expires_at=business.created_at)
    )  # fmt: skip
    db.commit()
    lived(settings, db, business)
    with Session(engine) as session, Connection(settings.amqp_url) as bus:
        for words in (str(business.id), business.email.upper(), "RC 17/2", "kettle"):
            assert list(account_trail.find(session, words)) == [business.id], words
        assert account_trail.find(session, "  ") == []
        found = account_trail.account_trail(session, business.id, connection=bus)
        assert account_trail.account_trail(session, new_id()) is None
    assert found.kyc_status == "approved"
    assert [secret.state for secret in found.secrets] == ["active"]
    assert found.orders == {"IN_TRANSIT": 1}
    assert found.orders_today == 1
    assert found.waiting == ()


def test_the_commands(settings, db):
    business = account(db, status="approved")
    order, *_ = lived(settings, db, business)
    code, out, err = fellow(settings, "trail", str(order.order_id), "--json")
    assert code == 0, err
    assert {s["what"] for s in json.loads(out)["steps"]} >= {"accepted", "recorded", "email"}
    code, out, err = fellow(settings, "trail", "zoe@shop.example")
    assert (code, f"Order {order.order_id}: IN_TRANSIT" in out) == (0, True), err
    code, _, err = fellow(settings, "trail", str(new_id()))
    assert (code, "Nothing is known of" in err) == (1, True)
    assert fellow(settings, "trail", "no-such-key")[0] == 1
    code, out, _ = fellow(settings, "account", "show", business.email, "--json")
    assert json.loads(out)["orders"] == {"IN_TRANSIT": 1}
    code, out, _ = fellow(settings, "account", "show", business.email)
    assert parseaddr(out.splitlines()[0].rpartition(" ")[0]) == ("Kettle & Co", business.email)
    assert fellow(settings, "account", "show", "nobody")[0] == 1
    code, out, _ = fellow(settings, "kyc", "list", "--status", "approved", "--json")
    assert [a["email"] for a in json.loads(out)] == [business.email]
    assert json.loads(fellow(settings, "kyc", "list", "--json")[1]) == []
