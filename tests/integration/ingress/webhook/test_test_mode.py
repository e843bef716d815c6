"""Requests by a test secret: what goes to the bus, at which rate, and where they are counted."""

import json

import jwt
import pytest

from shared.bus.contract.events import (
    OrderCreated,
    OrderTestCancelled,
    OrderTestCreated,
    OrderTestStatusChanged,
    decode,
)
from tests.integration.arrange import by_each_worker, sign, take, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, PATH, approved, standard_headers

RAW = json.dumps(ORDER).encode()


@pytest.fixture
def sender(api):
    return approved(api)


@pytest.fixture
def keys(api, sender):
    shown = api.http.post("/webhook/test-secret/", headers=sender.bearer).json()
    return shown["secret_key"], shown["signing_secret"]


def drain(api):
    found = []
    while (message := take(api.amqp_url, "orders.intake")) is not None:
        found.append(decode(message.properties["type"], message.body))
    return found


def send(api, secret, body=ORDER, **headers):
    raw = json.dumps(body).encode()
    return api.http.post(PATH, content=raw, headers=sign(secret, raw) | headers)


def test_all_that_it_signs_is_about_test_orders(api, sender, keys):
    drain(api)
    key, standard = keys
    order_id = send(api, key).json()["order_id"]
    headers = standard_headers(standard, RAW)
    assert api.http.post(sender.path, content=RAW, headers=headers).status_code == 201
    for body in (
        {"type": "order.status_changed", "order_id": order_id, "tracking_status": "DELIVERED"},
        {"type": "order.cancelled", "order_id": order_id},
    ):
        assert send(api, key, body).status_code == 201
    assert [type(event) for event in drain(api)] == [
        OrderTestCreated,
        OrderTestCreated,
        OrderTestStatusChanged,
        OrderTestCancelled,
    ]
    refused = send(api, key, {"type": "order.test_created", **ORDER})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_body")
    assert send(api, sender.secret).status_code == 201
    assert [type(event) for event in drain(api)] == [OrderCreated]


def test_one_key_is_one_order_in_each_mode(api, sender, keys):
    same = {"Idempotency-Key": "one"}
    live, test = send(api, sender.secret, **same), send(api, keys[0], **same)
    assert live.json()["order_id"] != test.json()["order_id"]
    assert send(api, keys[0], **same).json() == test.json()


def test_its_rate_is_its_own(api, sender, keys):
    answers = [send(api, keys[0]) for _ in range(60)]
    assert {a.headers["RateLimit-Limit"] for a in answers} == {"10"}
    assert {a.status_code for a in answers} <= {201, 429}
    live = sender.send()
    assert (live.status_code, live.headers["RateLimit-Limit"] != "10") == (201, True)


def test_its_requests_are_counted_nowhere_but_in_the_senders_log(api, tmp_path):
    # One worker tells its own numbers at once; another's are up to a second old.
    with running_ingress(tmp_path, api.amqp_url, api.database_url, WEB_CONCURRENCY="1") as single:
        sender = approved(single)
        key = single.http.post("/webhook/test-secret/", headers=sender.bearer).json()["secret_key"]
        assert sender.send().status_code == 201
        order_id = send(single, key).json()["order_id"]
        assert send(single, key, {"no": "order"}).status_code == 400
        page = single.http.get(f"{single.url}/metrics").text
        lines = [n for n in page.splitlines() if n.startswith("fellow_webhook_requests_total{")]
        assert lines == ['fellow_webhook_requests_total{code="accepted"} 1.0']

        def logged():
            found = single.http.get("/webhooks/log/", headers=sender.bearer).json()["results"]
            return [one for one in found if one["order_id"] == order_id]

        until(logged, "it is in the log")
        assert logged()[0]["event_type"] == "order.test_created"
        health = single.http.get("/webhooks/health/", headers=sender.bearer).json()
        assert health["orders"] == 1


def test_a_receipt_says_that_it_is_a_tests(api, sender, keys):
    def claims(answer):
        return jwt.decode(answer.json()["receipt"], options={"verify_signature": False})

    test = send(api, keys[0], Prefer="receipt")
    assert claims(test)["test"] is True
    event_id = claims(test)["event_id"]
    path = f"/webhooks/receipts/{event_id}/"
    until(lambda: api.http.get(path, headers=sender.bearer).status_code == 200, "in the log")
    shown = api.http.get(path, headers=sender.bearer)
    assert shown.json()["receipt"] == test.json()["receipt"]
    assert "test" not in claims(sender.send(Prefer="receipt"))


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


@pytest.mark.parametrize("given", ["0" * 256, TRACE + "0" * 220, "x", TRACE])
def test_a_trace_that_is_none_breaks_no_test_order(api, sender, given):
    headers = sender.bearer | {"traceparent": given}
    answer = api.http.post("/webhooks/test-order/", headers=headers)
    assert answer.status_code == 202, answer.text


def test_the_test_endpoint_says_which_secret_it_was(api, sender, keys):
    sent = {"headers": sign(keys[0], RAW), "body": RAW.decode()}
    verdict = api.http.post("/webhooks/test/", json=sent, headers=sender.bearer).json()
    assert verdict["is_accepted"]
    assert "test secret" in " ".join(verdict["findings"])
    live = {"headers": sign(sender.secret, RAW), "body": RAW.decode()}
    verdict = api.http.post("/webhooks/test/", json=live, headers=sender.bearer).json()
    assert "test secret" not in " ".join(verdict["findings"])


def test_it_ends_at_once_and_leaves_the_live_one(api, sender, keys):
    assert send(api, keys[0]).status_code == 201
    gone = api.http.delete("/webhook/test-secret/", headers=sender.bearer)
    assert gone.status_code == 204

    def answers():
        return by_each_worker(api.pid, lambda: send(api, keys[0]).status_code)

    until(lambda: set(answers()) == {401}, "every worker knows")
    assert sender.send().status_code == sender.standard().status_code == 201
    shown = api.http.get("/webhook/test-secret/", headers=sender.bearer)
    assert (shown.status_code, shown.json()["code"]) == (404, "no_test_secret")
