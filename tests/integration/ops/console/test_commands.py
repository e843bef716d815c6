"""What the page of a business says of its commands: what works on, and what was refused."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update

from shared.bus import outbox
from shared.bus.contract.events import encode
from shared.bus.contract.message import message_for
from shared.db.models import KycApplication, OutboxMessage, WebhookPublicKey, WebhookSecret
from shared.ids import new_id
from shared.web.results import SURE
from tests.integration.arrange import account, depth, order_created, until
from tests.integration.ops.console.pages.test_masked_pages import console, form, service, signed_in
from tests.integration.ops.console.test_queue_rights import letter

__all__ = ["console", "service"]


def secret(business, state="active", platform="", *, days=0, is_test=False):
    at = datetime.now(UTC) - timedelta(days=days)
    return WebhookSecret(
        account_id=business.id,
        platform=platform,
        is_test=is_test,
        key_hash=new_id().bytes * 2,
        sealed=b"x",
        state=state,
        issued_at=at,
        expires_at=at + timedelta(days=900),
    )


@pytest.fixture
def business(db):
    """One whose own secret is the oldest of many."""
    made = account(db, status="approved", company_name="Kettle & Co")
    db.add_all(secret(made, "revoked", days=number) for number in range(130))
    db.add_all([secret(made, days=300), secret(made, platform="shopify", days=300)])
    keys = [new_id().bytes * 2 for _ in range(2)]
    db.add_all(WebhookPublicKey(account_id=made.id, public_key=key, state="active") for key in keys)
    db.commit()
    return made


def test_what_works_on_is_named_and_what_works_is_listed_first(console, db, business):
    with signed_in(console, db, "kyc") as client:
        page = client.get(f"/accounts/{business.id}").text
        assert page.count('<span class="tag">active</span>') == 4
        assert "And 32 more that have ended." in page
        assert "1 Shopify secret, 2 public keys work on" in page
        for command in ("replace", "replace_at_once"):
            asked = client.post(
                f"/accounts/{business.id}", data=form(client) | {"command": command}
            ).text
            assert "<dt>Goes on working</dt><dd>1 Shopify secret, 2 public keys</dd>" in asked
        revoke = {"command": "revoke", "reason": "x"}
        asked = client.post(f"/accounts/{business.id}", data=form(client) | revoke).text
        assert "also the secrets of its shops and its public keys" in asked


@pytest.mark.parametrize(
    ("queue", "type_", "path"),
    [
        ("secrets.rotate", "secret.revoke", "/accounts/{account}/outcomes/{message}"),
        ("kyc.decisions", "kyc.decide", "/kyc/outcomes/{message}"),
    ],
)
def test_a_refusal_is_shown_with_its_reason(console, db, business, amqp_url, queue, type_, path):
    id_ = letter(amqp_url, queue, type_, {"account_id": str(business.id)})
    to = path.format(account=business.id, message=id_)
    with signed_in(console, db, "kyc") as client:
        page = client.get(to, params={"account": str(business.id), "look": "2"}).text
        assert "Refused: no business matches" in page
        assert f'href="/dead/{queue}"' in page
        assert "running?" not in page
        never = path.format(account=business.id, message=new_id())
        page = client.get(never, params={"account": str(business.id), "look": "62"}).text
        assert f"It is safe in {queue}: is services.{queue.partition('.')[0]} running?" in page


def hidden(page, name):
    return re.search(rf'name="{name}" value="([^"]*)"', page)[1]


def test_a_decision_on_the_desk_is_about_what_was_looked_at(console, db):
    """Two persons have the card before them; bob is faster."""
    business = account(db, status="pending", company_name="Kettle & Co")
    with signed_in(console, db, "kyc") as client:
        seen = {"looked_at": hidden(client.get("/kyc").text, "looked_at")}
        db.execute(
            update(KycApplication).values(
                status="incomplete", decided_at=func.now(), decided_by="bob", reason="Which?"
            )
        )
        db.commit()
        answer = client.post(
            f"/kyc/{business.id}", data=form(client) | seen | {"decision": "approve"}
        )
        assert answer.status_code == 409
        assert "It is incomplete meanwhile, decided by bob: look at it again." in answer.text
        seen = {"looked_at": hidden(client.get("/kyc?status=incomplete").text, "looked_at")}
        assert seen["looked_at"].startswith("incomplete 20")
        answer = client.post(
            f"/kyc/{business.id}", data=form(client) | seen | {"decision": "approve"}
        )
        assert "Approve Kettle &amp; Co?" in answer.text
        assert hidden(answer.text, "looked_at") == seen["looked_at"]


@pytest.mark.parametrize("action", ["discard", "edit"])
def test_what_somebody_has_mended_is_not_discarded_or_overwritten(console, db, action):
    message = message_for(order_created(), source="tests", correlation_id="story")
    outbox.add(db, [message])
    db.execute(text("UPDATE outbox SET parked_at = now(), next_try_at = now() + interval '1 hour'"))
    db.commit()
    number = db.scalar(select(OutboxMessage.sequence))
    with signed_in(console, db, "messages") as client:
        given = {"why": "x", "about": "story", "body": message.body.decode()}
        page = client.get(f"/outbox/messages/{number}").text
        given |= form(client) | {"digest": hidden(page, "digest")}
        better = encode(order_created(item_summary="1 x red kettle"))
        db.execute(update(OutboxMessage).values(body=better))
        db.commit()
        answer = client.post(f"/outbox/messages/{number}/{action}", data=given)
        assert (answer.status_code, "look at it again" in answer.text) == (409, True)
    db.rollback()
    assert db.scalar(select(OutboxMessage.body).where(OutboxMessage.sequence == number)) == better


def test_while_the_broker_takes_no_messages_nothing_is_sent_to_come_out_later(
    console, broker, db, amqp_url
):
    business = account(db, status="pending")
    limit = broker.evaluate("vm_memory_monitor:get_vm_memory_high_watermark()")
    with signed_in(console, db, "kyc") as client:
        broker.control("set_vm_memory_high_watermark", "0")
        try:
            until(lambda: "blocked" in client.get("/").text, "the console sees it")
            sure = form(client) | {"decision": "approve", SURE: "yes"}
            answer = client.post(f"/kyc/{business.id}", data=sure)
            assert answer.status_code == 503
            assert "takes no messages" in answer.text
            assert "Nothing was sent to it." in answer.text
        finally:
            broker.control("set_vm_memory_high_watermark", limit)
        until(lambda: "blocked" not in client.get("/").text, "it is over")
    assert depth(amqp_url, "kyc.decisions") == 0
