"""Test mode as a business lives it: all parts run, and what is mailed is in real mailboxes."""

import json
import uuid
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from stack.mailbox import Maildir
from tests.integration.arrange import sign, until
from tests.integration.story.test_story import Business, order


@pytest.fixture(scope="module")
def business(running):
    """An approved business."""
    return Business(running).register().submit().decide("approve")


def signed(secret, body, **headers):
    raw = json.dumps(body).encode()
    return {"content": raw, "headers": sign(secret, raw) | headers}


def everybody(running):
    """All whom an email went to."""
    return [mail["To"] for mail in Maildir(running.mailbox).emails()]


def listed(business, mode):
    return business.http.get("/orders/", params={"mode": mode}).json()["results"]


def test_from_the_approval_to_the_first_live_order(running, business):
    live = business.secret()
    assert business.http.get("/webhook/test-secret/").json()["code"] == "no_test_secret"
    made = business.http.post("/webhook/test-secret/")
    assert made.status_code == 201, made.text
    test = made.json()["secret_key"]
    assert test.startswith("whtk_TEST")
    assert made.json()["signing_secret"].startswith("whsec_TEST")
    assert "/secret" in business.mail("Your test secret is ready")

    # One of ours, then two of its own by either scheme, then what happens to them.
    ours = business.http.post("/webhooks/test-order/")
    assert (ours.status_code, ours.json()["mailed_to"]) == (202, business.email)
    run = uuid.uuid4().hex[:6]
    customer = f"customer7{run}@shop.example"
    path = "/webhooks/orders/"
    first = business.http.post(path, **signed(test, order(7, run), **{"Idempotency-Key": run}))
    assert first.status_code == 201, first.text
    id_ = first.json()["order_id"]
    until(lambda: any(o["id"] == id_ for o in listed(business, "test")), "it is recorded")
    moved = {"type": "order.status_changed", "order_id": id_, "tracking_status": "DELIVERED"}
    assert business.http.post(path, **signed(test, moved)).status_code == 201
    assert business.mail("TEST: Kettle & Co has your order")
    text = business.mail("TEST: Your order from Kettle & Co: delivered")
    assert "This is a test order" in text
    assert "Customer 7" in text

    def has_both():
        found = listed(business, "test")
        return found if {o["id"] for o in found} == {id_, ours.json()["order_id"]} else None

    tests = until(has_both, "both are recorded")
    assert {o["mode"] for o in tests} == {"test"}
    assert next(o for o in tests if o["id"] == id_)["customer_details"]["email"] == customer
    assert listed(business, "live") == []
    detail = business.http.get(f"/orders/{id_}/").json()
    assert detail["tracking_status"] == "DELIVERED"

    def mailed():
        return business.http.get(f"/orders/{id_}/").json()["emails"]

    # An email is in a mailbox before it is written down.
    until(lambda: len(mailed()) == 2, "both emails are written down")
    assert {mail["recipient"] for mail in mailed()} == {business.email}
    assert not any("shop.example" in to for to in everybody(running) if run in to)

    # A live update does not touch it, nor a test one a live order.
    raw = json.dumps(moved | {"tracking_status": "CANCELLED"}).encode()
    assert business.http.post(path, content=raw, headers=sign(live, raw)).status_code == 201

    cleared = business.http.delete("/orders/test/")
    assert cleared.json() == {"orders": 2, "more": False}
    assert listed(business, "test") == []

    # The same key, live: another order, for the customer.
    real = business.http.post(path, **signed(live, order(7, run), **{"Idempotency-Key": run}))
    assert real.status_code == 201
    assert real.json()["order_id"] != id_
    until(lambda: any(customer in to for to in everybody(running)), "the customer is mailed")
    assert [o["id"] for o in listed(business, "live")] == [real.json()["order_id"]]
    # The request log is written behind the requests.
    until(
        lambda: business.http.get("/webhooks/health/").json()["orders"] == 1,
        "the live order is counted, and it alone",
    )

    gone = business.http.delete("/webhook/test-secret/")
    assert gone.status_code == 204
    until(
        lambda: business.http.post(path, **signed(test, order(8, run))).status_code == 401,
        "the test secret works no more",
    )
    assert business.send(live, order(9, run)).status_code == 201


def test_the_library_takes_the_test_secret(running, business):
    shown = business.http.post("/webhook/test-secret/").json()["signing_secret"]
    id_, at, raw = f"msg_{uuid.uuid4()}", datetime.now(UTC), json.dumps(order(1, "lib"))
    headers = {
        "Content-Type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(shown).sign(id_, at, raw),
    }

    def accepted():
        answer = business.http.post(
            f"/webhooks/{business.id}/orders/", content=raw, headers=headers
        )
        return answer.json()["order_id"] if answer.status_code == 201 else None

    id_ = until(accepted, "every worker knows it")
    until(lambda: any(o["id"] == id_ for o in listed(business, "test")), "it is a test order")
