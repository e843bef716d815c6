"""`POST /webhooks/test/`: what the webhook would say, and why, with nothing recorded."""

import base64
import json

import pytest

from tests.integration.arrange import sign
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, approved

RAW = json.dumps(ORDER).encode()


def verify(sender, headers, **body):
    answer = sender.api.http.post(
        "/webhooks/test/", json={"headers": headers} | body, headers=sender.bearer
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_says_what_the_webhook_says_and_records_nothing(sender, published):
    cases = [
        (RAW, sign(sender.secret, RAW)),
        (RAW, sign(sender.secret, RAW + b"\n")),
        (RAW, sign(sender.secret, RAW) | {"X-API-Key": "whsk_nobody"}),
        (RAW, sign(sender.secret, RAW) | {"Content-Type": "text/plain"}),
        (b"{}", sign(sender.secret, b"{}")),
        (b"\xff", sign(sender.secret, b"\xff")),
        (RAW, {}),
    ]
    for body, headers in cases:
        before = published.count()
        verdict = verify(sender, headers, body_base64=base64.b64encode(body).decode())
        assert published.count() == before
        real = (
            sender.send(body, **headers)
            if headers
            else sender.api.http.post("/webhooks/orders/", content=body)
        )
        assert verdict["is_accepted"] == (real.status_code == 201)
        assert verdict["code"] == real.json().get("code")


def test_it_names_the_secret_and_what_differs(sender):
    replaced = sender.api.http.post("/webhook/secret/", headers=sender.bearer).json()
    compact = json.dumps(ORDER, separators=(",", ":")).encode()
    verdict = verify(sender, sign(sender.secret, compact), body=RAW.decode())
    assert (verdict["code"], verdict["is_signed"]) == ("invalid_signature", False)
    assert verdict["secret"]["state"] == "retiring"
    assert "re-serialised" in verdict["findings"][0]
    assert verdict["body"]["type"] == "order.created"
    new = verify(sender, sign(replaced["secret_key"], RAW), body=RAW.decode())
    assert (new["is_accepted"], new["secret"]["state"]) == (True, "active")
    assert new["expected_signature"] == sign(replaced["secret_key"], RAW)["X-Webhook-Signature"]


def test_it_knows_the_callers_own_secrets_only(api, sender):
    another = approved(api)
    verdict = verify(another, sign(sender.secret, RAW), body=RAW.decode())
    assert (verdict["code"], verdict["secret"]) == ("invalid_api_key", None)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"body": "a", "body_base64": "YQ=="},
        {"body_base64": "%"},
        {"body_base64": "é"},
        {"body": "\ud800"},
    ],
)
def test_a_body_in_exactly_one_form(sender, body):
    answer = sender.api.http.post(
        "/webhooks/test/",
        content=json.dumps({"headers": {}} | body).encode(),
        headers=sender.bearer | {"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")


def test_an_account_that_asks_too_often_waits_and_no_other(api, tmp_path):
    limits = {"ACCOUNT_ATTEMPTS_PER_MINUTE": "2", "WEB_CONCURRENCY": "1"}
    with running_ingress(tmp_path, api.amqp_url, api.database_url, **limits) as strict:
        sender, another = approved(strict), approved(strict)
        for _ in range(2):
            verify(sender, {}, body="")
        answer = strict.http.post(
            "/webhooks/test/", json={"headers": {}, "body": ""}, headers=sender.bearer
        )
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert int(answer.headers["retry-after"]) > 0
        verify(another, {}, body="")
