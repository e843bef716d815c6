"""What `fellow journal replay` says again is not done twice, whatever queue it goes to."""

from datetime import UTC, datetime, timedelta
from importlib import import_module
from uuid import UUID

import pytest
from kombu import Connection
from sqlalchemy import func, select

from services.ops.journal import reading, replaying
from shared.bus.contract import topology
from shared.bus.contract.events import (
    AccountBlock,
    AccountChanged,
    KycApproved,
    KycDecide,
    SecretGiven,
    SecretIssued,
    SecretKeyRemoved,
    SecretRevoke,
    SecretRevoked,
    SecretRotate,
    SecretRotated,
    WebhookLimit,
)
from shared.bus.contract.message import message_for
from shared.db.models import (
    KycApplication,
    OutboxMessage,
    WebhookPolicy,
    WebhookPublicKey,
    WebhookSecret,
)
from shared.ids import follow_up_id, new_id
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


def again(settings, *messages, queue, dead=0):
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
    assert depth(settings.amqp_url, f"{queue}.dead") == dead


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


def test_a_copied_approval_that_names_no_application_approves_none(settings, db):
    """As in a database that was restored: the inbox does not know it, nor the application."""
    made, named = (account(db, status="pending") for _ in range(2))
    (about,) = db.scalars(select(KycApplication.id).where(KycApplication.account_id == named.id))
    bare, exact, refusal = (
        KycDecide(decision="approve", email=made.email),
        KycDecide(decision="approve", email=named.email, application_id=about),
        KycDecide(decision="reject", email=made.email, reason="No such street."),
    )
    again(settings, *map(decision, (bare, exact)), queue="kyc.decisions", dead=1)
    db.rollback()
    assert dict(db.execute(select(KycApplication.account_id, KycApplication.status)).all()) == {
        made.id: "pending",
        named.id: "approved",
    }
    # What gives nobody anything is carried out.
    again(settings, decision(refusal), queue="kyc.decisions", dead=1)
    db.rollback()
    assert sorted(db.scalars(select(KycApplication.status))) == ["approved", "rejected"]


def decision(command):
    return message_for(command, source="tests", correlation_id=new_id())


def ended(business, ids):
    common = {
        "account_id": business.id,
        "company_name": business.company_name,
        "email": business.email,
    }
    now, other = datetime.now(UTC), new_id()
    (first, second, third, fourth, key) = ids
    return (
        SecretRevoked(**common, secret_ids=(first,), reason="It leaked."),
        SecretRotated(
            **common,
            secret_id=other,
            expires_at=now,
            previous_secret_id=second,
            previous_valid_until=now,
            cause="business",
            revoked_ids=(second,),
        ),
        SecretIssued(**common, secret_id=other, expires_at=now, revoked_ids=(third,)),
        SecretGiven(
            **common,
            platform="shopify",
            shop="",
            secret_id=other,
            address="192.0.2.1",
            previous_valid_until=None,
            revoked_ids=(fourth,),
        ),
        SecretKeyRemoved(
            **common, key_id=key, secret_ids=(key,), public_key="", address="192.0.2.1"
        ),
    )


def test_what_a_business_has_ended_is_ended_again_and_told_nobody(settings, db, business):
    for _ in range(4):
        rotate(settings, business)
    key = WebhookPublicKey(account_id=business.id, public_key=bytes(32), state="active")
    db.add(key)
    db.commit()
    secrets = db.scalars(select(WebhookSecret.id).order_by(WebhookSecret.issued_at)).all()
    facts = ended(business, (*secrets[:4], key.id))
    told_before = db.scalar(select(func.count()).select_from(OutboxMessage))
    stranger = account(db, status="approved")
    # A copy of what was said of another account ends nothing of this one's.
    again(settings, *map(told, ended(stranger, (*secrets[:4], key.id))), queue="secrets.rotate")
    assert states(db, business) == ["active", *["retiring"] * 4]
    again(settings, *map(told, facts), queue="secrets.rotate")
    assert states(db, business) == ["active", *["revoked"] * 4]
    db.refresh(key)
    assert key.state == "revoked"
    assert db.scalar(select(func.count()).select_from(OutboxMessage)) == told_before


def test_a_fact_that_is_no_copy_ends_nothing(settings, db, business):
    (secret,) = db.scalars(select(WebhookSecret.id))
    fact = told(ended(business, [secret] * 5)[0])
    publish_raw(
        settings.amqp_url,
        "",
        "secrets.rotate",
        fact.body,
        message_id=fact.message_id,
        type=fact.type,
        application_headers=fact.headers(),
    )
    run(settings, "secrets.rotate")
    assert depth(settings.amqp_url, "secrets.rotate.dead") == 1
    assert states(db, business) == ["active"]


def test_what_a_copied_command_tells_has_the_id_that_it_had(settings, db, business):
    commands = [
        told(SecretRevoke(account_id=business.id, reason="It leaked.")),
        told(AccountBlock(account_id=business.id, blocked=True, reason="A test.")),
    ]
    publish(settings.amqp_url, *commands)
    run(settings, "secrets.rotate")
    rows = db.execute(select(OutboxMessage.type, OutboxMessage.message_id)).all()
    # Of an account that is blocked it is another than of one that is let in again.
    effects = (SecretRevoked.TYPE, f"{AccountChanged.TYPE} blocked")
    for command, effect in zip(commands, effects, strict=True):
        id_ = follow_up_id(UUID(command.message_id), effect, business.id)
        assert (effect.split()[0], id_) in rows


def bare(settings, message, key):
    """A command as somebody types it, without an id."""
    publish_raw(settings.amqp_url, "commands", key, message.body, type=message.type)


def replayed(settings, queue):
    """Replay the whole journal to a queue; returns how many were left to a person."""
    since = datetime.now(UTC) - timedelta(hours=1)
    chosen = next(one for one in topology.WORK_QUEUES if one.name == queue)
    with Connection(settings.amqp_url) as source, Connection(settings.amqp_url) as writing:
        replaying.replay(writing, chosen, reading.read(source, since, datetime.now(UTC)))
    run(settings, queue)
    return depth(settings.amqp_url, f"{queue}.dead")


@pytest.mark.parametrize("times", [1, 2])
def test_a_command_without_an_id_does_nothing_to_what_came_after_it(settings, db, business, times):
    """No inbox knows it, so nobody can tell whether it was carried out."""
    for key, event in [
        ("secret.revoke", SecretRevoke(account_id=business.id, reason="It leaked.")),
        ("account.block", AccountBlock(account_id=business.id, blocked=True, reason="A test.")),
        ("account.block", AccountBlock(account_id=business.id, blocked=False, reason="A test.")),
        ("webhook.limit", WebhookLimit(account_id=business.id, per_second=7)),
        ("secret.rotate", SecretRotate(account_id=business.id, cause="operator")),
    ]:
        bare(settings, told(event), key)
        run(settings, "secrets.rotate")
    before = states(db, business)
    assert before == ["active", "revoked"]
    db.query(WebhookPolicy).update({"rate_per_second": 9})
    db.commit()
    for time in range(1, times + 1):
        # Revoking, blocking and letting in, the limit and the rotation would each do something.
        assert replayed(settings, "secrets.rotate") == 4 * time
    assert states(db, business) == before
    policy = db.query(WebhookPolicy).one()
    assert (policy.rate_per_second, policy.blocked_at) == (9, None)


@pytest.mark.parametrize("what", ["revoke", "reject", "ask"])
def test_a_decision_without_an_id_does_nothing_to_what_came_after_it(settings, db, what):
    before = "approved" if what == "revoke" else "pending"
    made = account(db, status=before)
    command = KycDecide(decision=what, email=made.email, reason="A test.")
    about = db.query(KycApplication).one()
    bare(settings, decision(command), "kyc.decide")
    run(settings, "kyc.decisions")
    db.rollback()
    assert about.status != before
    about.status, about.reason = before, ""
    db.commit()
    assert replayed(settings, "kyc.decisions") == 1
    db.rollback()
    assert about.status == before
