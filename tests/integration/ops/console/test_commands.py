"""What the page of a business says of its commands: what works on, and what was refused."""

import html
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from services.ops.commands import kyc_applications
from services.ops.console.pages.kyc import desk
from shared.bus import outbox
from shared.bus.contract.events import OpsCommandPublished, encode
from shared.bus.contract.message import message_for
from shared.db.models import (
    InboxEntry,
    KycApplication,
    OutboxMessage,
    WebhookPublicKey,
    WebhookSecret,
)
from shared.ids import new_id
from shared.web.results import SURE
from tests.integration.arrange import account, depth, order_created, until
from tests.integration.of_a_file import amqp_url, database_url
from tests.integration.ops.console.pages.test_masked_pages import form, signed_in
from tests.integration.ops.console.running import console, service
from tests.integration.ops.console.test_queue_rights import letter

__all__ = ["amqp_url", "console", "database_url", "service"]


COMMANDED = OpsCommandPublished.TYPE


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
        revoke = form(client) | {"command": "revoke", "reason": "x"}
        # What is not chosen is not everything: a browser may have lost the choice.
        answer = client.post(f"/accounts/{business.id}", data=revoke)
        assert (answer.status_code, "Choose which" in answer.text) == (400, True)
        asked = client.post(f"/accounts/{business.id}", data=revoke | {"secret_id": "all"}).text
        assert "Revoke all webhook secrets and public keys of Kettle &amp; Co?" in asked
        assert "also the secrets of its shops and its public keys" in asked
        shopifys = select(WebhookSecret.id).where(
            WebhookSecret.account_id == business.id, WebhookSecret.platform == "shopify"
        )
        one = str(db.scalar(shopifys))
        asked = client.post(f"/accounts/{business.id}", data=revoke | {"secret_id": one}).text
        assert "Revoke one webhook secret or public key of Kettle &amp; Co?" in asked
        assert f"<dt>Secret or public key</dt><dd>{one}</dd>" in asked


def test_a_closed_business_is_shown_as_closed_and_takes_no_commands(console, db, amqp_url):
    made = account(db, status="revoked", company_name="Closed Kettle")
    made.closed_at, made.email = datetime.now(UTC), f"{made.id}@closed.invalid"
    account(db, company_name="Closed Kettle")  # registered anew
    db.commit()
    with signed_in(console, db, "kyc,customers") as client:
        page, found, desk_ = (
            client.get(path, params={"q": "Closed Kettle", "status": "revoked"}).text
            for path in (f"/accounts/{made.id}", "/find", "/kyc")
        )
        for text_ in (page, found, desk_):
            assert re.search("KYC revoked|>revoked<|>Revoked <", text_)
            assert ">closed <time" in text_
            assert "closed.invalid" not in text_
        assert "<h2>Change</h2>" not in page
        for sure in ({}, {SURE: "yes"}):
            block = form(client) | sure | {"command": "block", "reason": "Complaints."}
            answer = client.post(f"/accounts/{made.id}", data=block)
            assert (answer.status_code, "has closed its account" in answer.text) == (409, True)
    assert depth(amqp_url, "secrets.rotate") == 0


def test_buttons_of_different_businesses_have_different_names(console, db):
    for name in ("Blue Kettle", "Red Kettle"):
        account(db, status="pending", company_name=name)
    with signed_in(console, db, "kyc") as client:
        main = client.get("/kyc").text.split("<main")[1]
    names = re.findall(r'<button name="decision"[^>]*aria-label="([^"]+)"', main)
    assert len(names) == len(set(names)) >= 6
    assert {"Approve Blue Kettle …", "Reject Red Kettle …"} <= set(names)


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


def test_no_reason_tells_the_audit_log_of_a_customer(console, db):
    """It keeps what it was told, and no erasure reaches it."""
    made = account(db, status="pending")
    db.execute(delete(OutboxMessage))
    db.commit()
    with signed_in(console, db, "kyc") as client:
        for path, said in (
            ("accounts", {"command": "block"}),
            ("accounts", {"command": "unblock"}),
            ("accounts", {"command": "revoke", "secret_id": "all"}),
            ("kyc", {"decision": "reject"}),
            ("kyc", {"decision": "ask"}),
            ("kyc", {"decision": "revoke"}),
        ):
            for sure in ({}, {SURE: "yes"}):
                given = form(client) | said | sure | {"reason": "It mailed zoe@shop.example."}
                answer = client.post(f"/{path}/{made.id}", data=given)
                assert answer.status_code == 400, answer.text
                assert "must be without an email address" in answer.text
            given = form(client) | said | {"reason": f"We cannot reach {made.email}."}
            assert client.post(f"/{path}/{made.id}", data=given).status_code == 200
    db.rollback()
    assert db.scalars(select(OutboxMessage.type).where(OutboxMessage.type == COMMANDED)).all() == []


def test_a_decision_on_the_desk_is_about_what_was_looked_at(console, db):
    """Two persons have the card before them; bob is faster."""
    business = account(db, status="pending", company_name="Kettle & Co")
    with signed_in(console, db, "kyc") as client:
        seen = {"looked_at": hidden(client.get("/kyc").text, "looked_at")}
        decided = update(KycApplication).where(KycApplication.account_id == business.id)
        db.execute(
            decided.values(
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


def test_a_decided_application_is_hidden_until_the_decision_is_carried_out_or_overtaken(
    console, db
):
    business = account(db, status="pending", company_name="Kettle & Co")
    one = db.scalar(select(KycApplication).where(KycApplication.account_id == business.id))
    card, message = f'id="account-{business.id}"', new_id()
    decided = {"decided": message, "account": business.id, "application": one.id}
    with signed_in(console, db, "kyc") as client:

        def shown(**more):
            return client.get("/kyc", params=decided | more).text

        page = shown(looked_at="pending")
        assert card not in page
        # A refused decision changes nothing, so the card stays hidden: the link shows it.
        assert "it may still be in its old state" in page
        (again,) = re.findall(r'<a href="([^"]+)">Show it</a>', page)
        assert card in client.get(html.unescape(again)).text
        db.add(InboxEntry(consumer="services.kyc", message_id=message))
        db.commit()
        assert card in shown(looked_at="pending")
        db.execute(delete(InboxEntry))
        one.status, one.decided_at, one.decided_by = "incomplete", datetime.now(UTC), "bob"
        db.commit()
        assert card in shown(looked_at="pending", status="incomplete")


def test_a_decision_carried_out_while_the_desk_is_read_does_not_show_the_old_state(
    settings, db, engine, monkeypatch
):
    business = account(db, status="pending", company_name="Kettle & Co")
    one = db.scalar(select(KycApplication).where(KycApplication.account_id == business.id))
    message, same_number = new_id(), kyc_applications.same_number

    def carried_out_before(session, found):
        one.status, one.decided_at, one.decided_by = "approved", datetime.now(UTC), "ada"
        db.add(InboxEntry(consumer="services.kyc", message_id=message))
        db.commit()
        return same_number(session, found)

    monkeypatch.setattr(kyc_applications, "same_number", carried_out_before)
    decided = {"decided": message, "account": business.id, "application": one.id}
    visit = SimpleNamespace(
        query={name: str(value) for name, value in decided.items()} | {"looked_at": "pending"},
        user=SimpleNamespace(may=lambda _: True),
        system=SimpleNamespace(config=settings),
    )
    with Session(engine) as session:
        shown = desk.show(session, visit).about["applications"]
    assert business.id not in {application.account_id for application, *_ in shown}


@pytest.mark.parametrize("action", ["discard", "edit"])
def test_what_somebody_has_mended_is_not_discarded_or_overwritten(console, db, action):
    message = message_for(order_created(), source="tests", correlation_id="story")
    outbox.add(db, [message])
    db.execute(text("UPDATE outbox SET parked_at = now(), next_try_at = now() + interval '1 hour'"))
    db.commit()
    number = db.scalar(
        select(OutboxMessage.sequence).where(OutboxMessage.message_id == message.message_id)
    )
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
