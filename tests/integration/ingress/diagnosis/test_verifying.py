"""`POST /webhooks/test/`: what the webhook would say, and why, with nothing recorded."""

import base64
import hmac
import json
import time

import pytest
from sqlalchemy import update

from shared.db.models import WebhookSecret
from tests.integration.arrange import sign, until
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


def standard(sender, body=RAW, stamp=None, id_="msg_1", write="v1,{}".format):
    """The headers of Standard Webhooks, rightly signed."""
    stamp = str(int(time.time())) if stamp is None else stamp
    signed = f"{id_}.{stamp}.".encode() + body
    raw = base64.urlsafe_b64decode(sender.secret.removeprefix("whsk_") + "=")
    right = base64.b64encode(hmac.digest(raw, signed, "sha256")).decode()
    return {"webhook-id": id_, "webhook-timestamp": stamp, "webhook-signature": write(right)}


def test_it_says_what_the_webhook_says_of_odd_headers(sender, published):
    """Each was told otherwise once, by a second set of rules."""
    now = int(time.time())
    by_key = sign(sender.secret, RAW)
    cases = [
        by_key | {"Content-Type": ""},
        by_key | {"Content-Encoding": ""},
        by_key | {"Idempotency-Key": "two words"},
        by_key | {"Idempotency-Key": "x" * 256},
        standard(sender),
        standard(sender, stamp=f"{now:015}"),
        standard(sender, stamp=str(now - 3_600), id_="a.b"),
        standard(sender, write=lambda right: "v1,AAAA" + " " * 16 + f"v1,{right}"),
        standard(sender, write=lambda right: f"v1,AAAA\tv1,{right}"),
    ]
    answers = []
    for headers in cases:
        path = f"/webhooks/{sender.account_id}/orders/" * ("webhook-id" in headers)
        given = {"Content-Type": "application/json"} | headers
        real = sender.api.http.post(path or "/webhooks/orders/", content=RAW, headers=given)
        verdict = verify(sender, headers, body=RAW.decode())
        answers.append((real.json().get("code"), verdict["code"], verdict["is_accepted"]))
    assert [said for _, said, _ in answers] == [code for code, _, _ in answers]
    assert [taken for _, _, taken in answers] == [code is None for code, _, _ in answers]
    assert answers[0][0] is None
    assert answers[4][0] is None


def test_it_tells_of_a_scheme_that_the_account_does_not_take(sender):
    chosen = sender.api.http.put(
        "/webhook/schemes/", json={"standard_webhooks_only": True}, headers=sender.bearer
    )
    assert chosen.status_code == 200, chosen.text
    verdict = verify(sender, sign(sender.secret, RAW), body=RAW.decode())
    assert (verdict["code"], verdict["is_signed"]) == ("scheme_not_allowed", True)
    assert verify(sender, standard(sender), body=RAW.decode())["is_accepted"]


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


def test_it_finds_an_unread_member_among_many(sender):
    many = {f"shop_{n}": "x" for n in range(35)}
    body = json.dumps(ORDER | {"tracking_nummber": "1Z"} | many)
    verdict = verify(sender, sign(sender.secret, body.encode()), body=body)
    assert "$.tracking_nummber is not read: was $.tracking_number meant?" in verdict["findings"]


def test_a_secret_that_still_works_is_known_however_often_it_was_replaced(sender):
    oldest = standard(sender)
    for _ in range(11):
        answer = sender.api.http.post("/webhook/secret/", headers=sender.bearer)
        assert answer.status_code == 200, answer.text
    assert sender.send(RAW).status_code == 201
    verdict = verify(sender, sign(sender.secret, RAW), body=RAW.decode())
    assert (verdict["is_accepted"], verdict["secret"]["state"]) == (True, "retiring")

    # Of those, and of a signature that names none, the webhook tries the newest alone.
    def refused():
        real = sender.api.http.post(sender.path, content=RAW, headers=oldest)
        return real.json().get("code") == "invalid_signature"

    until(refused, "the worker knows of all of them")
    assert verify(sender, oldest, body=RAW.decode())["code"] == "invalid_signature"


def test_white_space_around_a_header_counts_for_nothing(sender):
    by_key = {name: f" {value}\t" for name, value in sign(sender.secret, RAW).items()}
    lines = [f"{name}:{value}".encode() for name, value in by_key.items()]
    status, _ = sender.raw(b"Content-Length: %d" % len(RAW), *lines, body=RAW)
    assert status == 201
    assert verify(sender, by_key, body=RAW.decode())["is_accepted"]
    by_standard = {name: f" {value} " for name, value in standard(sender).items()}
    assert verify(sender, by_standard, body=RAW.decode())["is_accepted"]


def test_what_a_test_secret_signs_is_about_a_test_order(sender):
    answer = sender.api.http.post("/webhook/test-secret/", headers=sender.bearer)
    assert answer.status_code == 201, answer.text
    verdict = verify(sender, sign(answer.json()["secret_key"], RAW), body=RAW.decode())
    assert (verdict["is_accepted"], verdict["body"]["type"]) == (True, "order.test_created")
    live = verify(sender, sign(sender.secret, RAW), body=RAW.decode())
    assert live["body"]["type"] == "order.created"


def test_a_secret_that_no_key_opens_is_503_as_at_the_webhook(api):
    """Its bytes are under a key that is not listed any more."""
    sender = approved(api)
    with api.session() as session, session.begin():
        sealed = {"sealed": b"x" * 60}
        of_theirs = WebhookSecret.account_id == sender.account_id
        session.execute(update(WebhookSecret).where(of_theirs).values(**sealed))
    answer = api.http.post(
        "/webhooks/test/",
        json={"headers": standard(sender), "body": RAW.decode()},
        headers=sender.bearer,
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    routes = api.http.get("/openapi.json").json()["paths"]
    declared = routes["/api/v1/webhooks/test/"]["post"]["responses"]["503"]["description"]
    assert f"`unavailable`: {answer.json()['error']}" in declared


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


def test_an_order_of_the_largest_size_is_looked_at_however_it_is_written(sender):
    raw = RAW + b" " * (256 * 1024 - len(RAW))
    in_base64 = base64.b64encode(raw).decode()
    for body in ({"body": raw.decode()}, {"body_base64": in_base64}):
        verdict = verify(sender, sign(sender.secret, raw), **body)
        assert (verdict["is_accepted"], verdict["body"]["size"]) == (True, len(raw))
    answer = sender.api.http.post(
        "/webhooks/test/", json={"headers": {}, "body": "x" * 524_288}, headers=sender.bearer
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


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
