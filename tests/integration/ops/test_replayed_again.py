"""What `fellow journal replay` says again is not done twice, whatever queue it goes to."""

from importlib import import_module

import pytest
from sqlalchemy import func, select

from shared.bus.contract import topology
from shared.bus.contract.events import (
    AccountBlock,
    KycApproved,
    KycDecide,
    SecretRevoke,
    SecretRotate,
    WebhookLimit,
)
from shared.bus.contract.message import message_for
from shared.db.models import KycApplication, OutboxMessage, WebhookPolicy, WebhookSecret
from tests.integration.arrange import account, application, consuming, depth, publish, publish_raw

KEYED = {
    "audit": True,
    "kyc.decisions": False,
    "notifier.bulk": True,
    "notifier.orders": True,
    "notifier.urgent": True,
    "orders.intake": True,
    "secrets.issue": False,
    "secrets.rotate": False,
}
"""Where effects have keys of their own. A decision names its business and not what it was about;
what a command does to a secret or a policy, it does to whatever is there."""

SERVICES = ("audit", "kyc", "notifier", "orders", "secrets")


def subscriptions(settings):
    made = [import_module(f"services.{name}.__main__").wire(settings) for name in SERVICES]
    return {one.queue.name: one for wiring in made for one in wiring.subscriptions}


def test_every_subscription_says_whether_its_effects_have_keys(settings):
    found = subscriptions(settings)
    assert {name: one.keyed for name, one in found.items()} == KEYED
    assert set(found) == {queue.name for queue in topology.WORK_QUEUES}


def again(settings, *messages, queue):
    """As the journal's replay puts copies into a queue, when all is done that waits."""
    run(settings, queue)
    for message in messages:
        publish_raw(
            settings.amqp_url,
            "",
            queue,
            message.body,
            message_id=message.message_id,
            type=message.type,
            application_headers=message.headers() | {"x-replay": "again"},
        )
    run(settings, queue)
    assert depth(settings.amqp_url, f"{queue}.dead") == 0


def run(settings, queue):
    with consuming(settings, subscriptions(settings)[queue]):
        pass


def told(event):
    return message_for(event, source="tests", correlation_id=event.account_id)


def states(db, business):
    db.rollback()
    query = select(WebhookSecret.state).where(WebhookSecret.account_id == business.id)
    return sorted(db.scalars(query.order_by(WebhookSecret.issued_at)))


@pytest.fixture
def business(settings, db):
    """One with a secret."""
    made = account(db, status="approved")
    rotate(settings, made)
    return made


def rotate(settings, business):
    message = told(SecretRotate(account_id=business.id, cause="operator"))
    publish(settings.amqp_url, message)
    run(settings, "secrets.rotate")
    return message


def test_a_secret_is_not_rotated_once_more(settings, db, business):
    message = rotate(settings, business)
    before = states(db, business)
    again(settings, message, queue="secrets.rotate")
    assert states(db, business) == before == ["active", "retiring"]


def test_a_newer_secret_is_not_revoked(settings, db, business):
    message = told(SecretRevoke(account_id=business.id, reason="It leaked."))
    publish(settings.amqp_url, message)
    run(settings, "secrets.rotate")
    rotate(settings, business)
    again(settings, message, queue="secrets.rotate")
    assert states(db, business) == ["active", "revoked"]


def test_what_was_blocked_and_let_in_is_not_blocked_meanwhile(settings, db, business):
    messages = [
        told(AccountBlock(account_id=business.id, blocked=blocked, reason="A test."))
        for blocked in (True, False)
    ]
    messages.append(told(WebhookLimit(account_id=business.id, per_second=7)))
    publish(settings.amqp_url, *messages)
    run(settings, "secrets.rotate")
    db.rollback()
    before = db.scalar(select(func.count()).select_from(OutboxMessage))
    db.query(WebhookPolicy).update({"rate_per_second": 9})
    db.commit()
    again(settings, *messages, queue="secrets.rotate")
    assert db.scalar(select(func.count()).select_from(OutboxMessage)) == before
    assert db.query(WebhookPolicy).one().rate_per_second == 9


def test_no_secret_comes_back_that_was_revoked_on_purpose(settings, db):
    made = account(db, status="approved")
    fact = told(
        KycApproved(
            account_id=made.id,
            company_name=made.company_name,
            email=made.email,
            application_id=made.id,
            decided_by="ada",
        )
    )
    publish(settings.amqp_url, fact)
    run(settings, "secrets.issue")
    assert states(db, made) == ["active"]
    publish(settings.amqp_url, told(SecretRevoke(account_id=made.id, reason="On purpose.")))
    run(settings, "secrets.rotate")
    again(settings, fact, queue="secrets.issue")
    assert states(db, made) == ["revoked"]


def test_an_old_approval_does_not_approve_the_next_application(settings, db):
    made = account(db, status="pending")
    old = decide(settings, made, "approve")
    decide(settings, made, "revoke")
    db.add(application(made))
    db.commit()
    again(settings, old, queue="kyc.decisions")
    db.rollback()
    assert sorted(db.scalars(select(KycApplication.status))) == ["pending", "revoked"]


def decide(settings, business, what):
    message = message_for(
        KycDecide(decision=what, email=business.email), source="tests", correlation_id=business.id
    )
    publish(settings.amqp_url, message)
    run(settings, "kyc.decisions")
    return message
