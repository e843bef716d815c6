"""One signed order: taken or refused, in the words of the contract."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import update

from services.ingress.webhook import rules
from services.ingress.webhook.signature_text import CURES
from shared.bus.contract.events import SecretRotate, decode
from shared.db.models import KycApplication, WebhookSecret
from tests.integration.arrange import PATIENCE, by_each_worker, headers, sign, take, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import (
    ORDER,
    PATH,
    approved,
    exchange,
    standard_headers,
)

EXPIRED = "Webhook secret expired. New secret generated. Please update your configuration."


def drain(api, queue):
    while (message := take(api.amqp_url, queue)) is not None:
        yield message


def test_a_signed_order_is_on_the_queue_before_the_answer(api, sender):
    list(drain(api, "orders.intake"))
    answer = sender.send(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert answer.status_code == 201
    assert set(answer.json()) == {"status", "order_id"}
    assert answer.json()["status"] == "success"
    (message,) = drain(api, "orders.intake")
    order = decode(message.properties["type"], message.body)
    assert str(order.order_id) == answer.json()["order_id"] == message.properties["message_id"]
    assert order.account_id == sender.account_id
    assert order.customer_details.name == "Zoë Ade"
    assert message.properties["delivery_mode"] == 2
    assert headers(message)["traceparent"].startswith("00-aaa")
    assert headers(message)["ce-type"] == "order.created"
    assert sender.secret.encode() not in message.body


@pytest.mark.parametrize(
    "given",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/vnd.shop+json"},
        {"Content-Type": ""},
        {"Content-Encoding": "identity"},
        {"traceparent": "nonsense"},
        {"X-Forwarded-For": "1.2.3.4, nonsense"},
    ],
)
def test_harmless_headers(sender, given):
    assert sender.send(**given).status_code == 201


def test_a_capital_signature_counts(sender):
    raw = json.dumps(ORDER).encode()
    signature = sign(sender.secret, raw)["X-Webhook-Signature"].upper()
    assert sender.send(**{"X-Webhook-Signature": signature}).status_code == 201


def test_without_the_trailing_slash(api, sender):
    raw = json.dumps(ORDER).encode()
    answer = api.http.post(PATH[:-1], content=raw, headers=sign(sender.secret, raw))
    assert answer.status_code == 201


@pytest.mark.parametrize("missing", ["X-API-Key", "X-Webhook-Signature"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_missing_headers(api, sender, published, missing, how):
    raw = json.dumps(ORDER).encode()
    given = sign(sender.secret, raw)
    if how == "absent":
        del given[missing]
    else:
        given[missing] = ""
    answer = api.http.post(PATH, content=raw, headers=given)
    assert (answer.status_code, answer.json()) == (
        401,
        {
            "error": "Missing authentication headers",
            "code": "missing_authentication",
            "faults": [f"{missing} is missing or empty."],
        },
    )
    assert published.since() == 0


def test_the_headers_of_the_other_scheme_are_recognised(api, sender, published):
    raw = json.dumps(ORDER).encode()
    by_key, standard = sign(sender.secret, raw), standard_headers(sender.signing_secret, raw)
    for path, given, url in (
        (PATH, standard, "/webhooks/{account_id}/orders/"),
        (sender.path, by_key, "/webhooks/orders/"),
    ):
        answer = api.http.post(path, content=raw, headers=given)
        assert (answer.status_code, answer.json()["code"]) == (401, "missing_authentication")
        missing, meant = answer.json()["faults"]
        assert "are missing or empty" in missing
        assert f"they are for `POST /api/v1{url}`" in meant
    assert published.since() == 0


@pytest.mark.parametrize("path_of", [lambda _: PATH, lambda sender: sender.path])
def test_headers_by_other_names_are_recognised(api, sender, path_of):
    raw = json.dumps(ORDER).encode()
    svix = {
        name.replace("webhook-", "svix-"): value
        for name, value in standard_headers(sender.signing_secret, raw).items()
    }
    answer = api.http.post(path_of(sender), content=raw, headers=svix)
    assert "Svix's names: send webhook-id, webhook-timestamp and webhook-signature" in " ".join(
        answer.json()["faults"]
    )


def test_white_space_around_a_headers_value_is_none_of_it(sender):
    """RFC 9110, 5.5."""
    raw = json.dumps(ORDER).encode()
    lines = [b"%s \t" % line for line in signed_lines(sender, raw)]
    length = b"Content-Length: %d" % len(raw)
    assert sender.raw(*lines, b"Idempotency-Key:\torder-7  ", length, body=raw)[0] == 201


@pytest.mark.parametrize(
    "codings",
    [[b"gzip, chunked"], [b"gzip", b"chunked"], [b"identity, chunked"]],
)
def test_another_transfer_coding_is_refused(sender, published, codings):
    raw = json.dumps(ORDER).encode()
    lines = [b"Transfer-Encoding: %s" % coding for coding in codings]
    status, answer = sender.raw(*signed_lines(sender, raw, *lines), body=chunked(raw))
    assert (status, answer["code"]) == (501, "unknown_transfer_coding")
    assert published.since() == 0


def test_chunked_in_any_letters_is_taken(sender):
    raw = json.dumps(ORDER).encode()
    lines = signed_lines(sender, raw, b"Transfer-Encoding: Chunked ")
    assert sender.raw(*lines, body=chunked(raw))[0] == 201


def test_head_answers_as_get_does_without_a_body(api, sender):
    prefix = f"{api.url}/api/v1"
    for url in (
        f"{prefix}/orders/",
        f"{prefix}/webhooks/log/",
        f"{prefix}/webhook/secret/",
        f"{prefix}/docs/",
        f"{prefix}/openapi.json",
        f"{api.url}/healthz",
        f"{api.url}/readyz",
        f"{api.url}/metrics",
        f"{prefix}/webhooks/nothing/",
        f"{prefix}/webhooks/orders/",
        f"{prefix}/users/auth/login/",
    ):
        got = api.http.get(url, headers=sender.bearer)
        head = api.http.head(url, headers=sender.bearer)
        assert head.status_code == got.status_code, url
        assert head.content == b""
        assert head.headers["content-type"] == got.headers["content-type"]
    assert api.http.head("/orders/").status_code == 401


@pytest.mark.parametrize("key", ["whsk_unknown", "x", "x" * 5000, "whsk_" + "A" * 43])
def test_an_unknown_key(sender, published, key):
    answer = sender.send(**{"X-API-Key": key})
    assert (answer.status_code, answer.json()) == (
        401,
        {
            "error": "Invalid API key",
            "code": "invalid_api_key",
            "faults": [*([] if key.startswith("whsk_") else [rules.NO_KEY]), rules.KEY_CURE],
        },
    )
    assert published.since() == 0


@pytest.mark.parametrize(
    ("signature", "fault"),
    [
        ("0" * 64, ""),
        ("x", "neither hexadecimal nor base64"),
        ("0" * 40, "SHA-1"),
        ("0" * 5000, "5,000 characters"),
        ("sha256=" + "0" * 64, "`sha256=` before it"),
        ("A" * 43 + "=", "It must be in hexadecimal"),
    ],
)
def test_a_wrong_signature(sender, published, signature, fault):
    answer = sender.send(**{"X-Webhook-Signature": signature})
    said = answer.json()
    *faults, cure = said.pop("faults")
    assert (answer.status_code, said) == (
        401,
        {"error": "Invalid signature", "code": "invalid_signature"},
    )
    assert (fault in " ".join(faults), bool(faults)) == (True, bool(fault))
    assert cure == CURES["api_key"]
    assert published.since() == 0


def test_a_body_that_was_changed_on_its_way(api, sender, published):
    given = sign(sender.secret, json.dumps(ORDER).encode())
    changed = json.dumps(ORDER | {"address": "elsewhere"}).encode()
    answer = api.http.post(PATH, content=changed, headers=given)
    assert answer.json()["code"] == "invalid_signature"
    assert published.since() == 0


def test_one_accounts_signature_is_no_use_to_another(api, sender, published):
    other = approved(api)
    raw = json.dumps(ORDER).encode()
    mixed = sign(other.secret, raw) | {"X-API-Key": sender.secret}
    assert api.http.post(PATH, content=raw, headers=mixed).json()["code"] == "invalid_signature"
    assert published.since() == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"order"',
        b"\xff\xfe",
        b"{}",
        b"[" * 50_000,
        b'{"type": ' + b"9" * 20_000 + b"}",
        json.dumps(ORDER | {"customer_details": 5}).encode(),
        json.dumps(ORDER | {"item_summary": "nul \x00"}).encode(),
        json.dumps(ORDER | {"tracking_status": "LOST"}).encode(),
        json.dumps(ORDER | {"type": "order.exploded"}).encode(),
    ],
)
def test_a_bad_body(sender, published, body):
    answer = sender.send(body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert answer.json()["error"]
    assert published.since() == 0


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"Content-Type": "text/plain"}, "unsupported_media_type"),
        ({"Content-Type": "multipart/form-data"}, "unsupported_media_type"),
        ({"Content-Encoding": "gzip"}, "unsupported_media_type"),
    ],
)
def test_a_body_in_another_form(sender, published, given, code):
    answer = sender.send(**given)
    assert (answer.status_code, answer.json()["code"]) == (415, code)
    assert published.since() == 0


def signed_lines(sender, body, *more):
    lines = [f"{name}: {value}".encode() for name, value in sign(sender.secret, body).items()]
    return [*lines, *more]


def test_the_largest_body_and_one_byte_more(sender, published):
    def filled(size):
        rest = size - len(json.dumps(ORDER | {"filler": ""}).encode())
        return json.dumps(ORDER | {"filler": "x" * rest}).encode()

    assert sender.send(filled(262_144)).status_code == 201
    answer = sender.send(filled(262_145))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert published.since() == 1


def chunked(*chunks):
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return b"".join(parts) + b"0\r\n\r\n"


def test_a_chunked_body_is_whole_or_refused(sender, published):
    raw = json.dumps(ORDER).encode()
    lines = signed_lines(sender, raw, b"Transfer-Encoding: chunked")
    assert sender.raw(*lines, body=chunked(raw[:10], raw[10:11], raw[11:]))[0] == 201
    big = raw[:-1] + b" " * 300_000 + b"}"
    lines = signed_lines(sender, big, b"Transfer-Encoding: chunked")
    pieces = [big[i : i + 50_000] for i in range(0, len(big), 50_000)]
    assert sender.raw(*lines, body=chunked(*pieces)) == (
        413,
        {"error": "The body is larger than 262144 bytes.", "code": "body_too_large"},
    )
    assert published.since() == 1


def test_a_declared_length_that_is_too_large_is_refused_unread(sender, published):
    lines = signed_lines(sender, b"", b"Content-Length: 10000000000")
    status, answer = sender.raw(*lines, body=b"{")
    assert (status, answer["code"]) == (413, "body_too_large")
    assert published.since() == 0


def test_bytes_that_are_no_ascii_in_the_headers(api, sender, published):
    raw = json.dumps(ORDER).encode()
    length = b"Content-Length: %d" % len(raw)
    good = {k.encode(): v.encode() for k, v in sign(sender.secret, raw).items()}
    for name, value, code in [
        (b"X-API-Key", b"\xff\xfe\xe9", "invalid_api_key"),
        (b"X-API-Key", "Zoë".encode(), "invalid_api_key"),
        (b"X-Webhook-Signature", b"\xff" * 64, "invalid_signature"),
        (b"X-Webhook-Signature", "é".encode() * 32, "invalid_signature"),
    ]:
        lines = [b"%s: %s" % pair for pair in (good | {name: value}).items()]
        status, answer = exchange(api, *lines, length, body=raw)
        assert (status, answer["code"]) == (401, code)
    lines = [b"%s: %s" % pair for pair in good.items()]
    status, _ = exchange(api, *lines, b"X-Shop: Zo\xeb", length, body=raw)
    assert status == 201
    assert published.since() == 1


@pytest.mark.parametrize(
    ("name", "code"),
    [(b"X-API-Key", "invalid_api_key"), (b"X-Webhook-Signature", "invalid_signature")],
)
def test_a_header_given_twice(sender, published, name, code):
    raw = json.dumps(ORDER).encode()
    length = b"Content-Length: %d" % len(raw)
    value = sign(sender.secret, raw)[name.decode()].encode()
    for twice in (value, b"other"):
        for lines in (
            signed_lines(sender, raw, length, b"%s: %s" % (name.lower(), twice)),
            [b"%s: %s" % (name, twice), *signed_lines(sender, raw, length)],
        ):
            status, answer = sender.raw(*lines, body=raw)
            assert (status, answer["code"]) == (401, code)
    assert published.since() == 0


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: x"],
        [b"Content-Length: -1"],
        [b"Content-Length: 2", b"Content-Length: 3"],
        [b"Content-Length: 2", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"bad header"],
        [b"X-NUL: a\x00b"],
    ],
)
def test_a_request_that_is_no_http(api, published, lines):
    status, answer = exchange(api, *lines, body=b"{}")
    assert 400 <= status < 500
    assert answer["code"]
    assert published.since() == 0


@pytest.mark.parametrize(
    "line", [b"GET /healthz", b"GET /healthz HTTP/0.9", b"GET /healthz HTTP/3.0"]
)
def test_a_version_that_is_not_spoken_here(api, line):
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method(api, sender, method):
    answer = api.http.request(method, PATH)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


def test_another_path(api):
    answer = api.http.post("/webhooks/nothing/")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def move_expiry(api, sender, when):
    with api.session() as session:
        session.execute(
            update(WebhookSecret)
            .where(WebhookSecret.account_id == sender.account_id)
            .values(expires_at=when)
        )
        session.commit()


def rotations(api):
    return [decode(m.properties["type"], m.body) for m in drain(api, "secrets.rotate")]


def test_an_expired_secret(api, sender):
    list(drain(api, "secrets.rotate"))
    move_expiry(api, sender, datetime.now(UTC) - timedelta(seconds=1))
    answer = until(lambda: _refused(sender), "the poll tells every worker")
    assert answer.json() == {"error": EXPIRED, "code": "secret_expired"}
    # The command was made safe before the answer; one a worker and minute, at most.
    commands = rotations(api)
    list(drain(api, "orders.intake"))
    assert 1 <= len(commands) <= 2
    assert {(c.account_id, c.cause) for c in commands} == {(sender.account_id, "expired_use")}
    assert isinstance(commands[0], SecretRotate)
    sender.send()
    for _ in range(20):
        sender.send()
    assert len(rotations(api)) <= 1
    assert list(drain(api, "orders.intake")) == []


def _refused(sender):
    answers = by_each_worker(sender.api.pid, sender.send)
    return answers[-1] if all(a.status_code == 401 for a in answers) else None


def test_whoever_merely_knows_an_old_key_learns_and_moves_nothing(api, sender):
    list(drain(api, "secrets.rotate"))
    list(drain(api, "orders.intake"))
    move_expiry(api, sender, datetime.now(UTC) - timedelta(seconds=1))
    for _ in range(20):
        answer = sender.send(**{"X-Webhook-Signature": "0" * 64})
        assert answer.json()["code"] == "invalid_signature"
    assert rotations(api) == []


def test_kyc_is_asked_for_where_the_secret_is_fetched(api):
    business = approved(api)
    with api.session() as session:
        session.execute(
            update(KycApplication)
            .where(KycApplication.account_id == business.account_id)
            .values(status="pending")
        )
        session.commit()
    for method in ("GET", "POST"):
        answer = api.http.request(method, "/webhook/secret/", headers=business.bearer)
        assert answer.status_code == 403
        assert answer.json() == {
            "error": "KYC approval required",
            "code": "kyc_approval_required",
            "message": (
                "You must complete and have your KYC approved to access webhook functionality."
            ),
        }


def test_a_revoked_secret_is_an_unknown_one(api, sender, published):
    with api.session() as session:
        session.execute(
            update(WebhookSecret)
            .where(WebhookSecret.account_id == sender.account_id)
            .values(state="revoked")
        )
        session.commit()
    answer = until(lambda: _refused(sender), "the poll tells every worker")
    unknown = sender.send(**{"X-API-Key": "whsk_unknown"})
    assert (answer.content, answer.json()["error"]) == (unknown.content, "Invalid API key")


def test_an_account_has_a_limit_of_its_own(api, tmp_path):
    with running_ingress(
        tmp_path,
        api.amqp_url,
        api.database_url,
        WEB_CONCURRENCY="1",
        ACCOUNT_RATE_PER_SECOND="5",
    ) as limited:
        one, other = approved(limited), approved(limited)
        assert one.send().status_code == 201

        def too_fast():
            # At once: one after the other a busy machine sends no five a second.
            with ThreadPoolExecutor(20) as crowd:
                answers = list(crowd.map(lambda _: one.send(), range(60)))
            assert {answer.status_code for answer in answers} <= {201, 429}
            return [answer for answer in answers if answer.status_code == 429]

        refused = until(too_fast, "it is too fast")
        assert refused[0].json()["code"] == "rate_limited"
        assert int(refused[0].headers["retry-after"]) >= 1
        assert other.send().status_code == 201


def test_an_address_that_is_refused_too_often_waits(api, tmp_path):
    with running_ingress(
        tmp_path,
        api.amqp_url,
        api.database_url,
        WEB_CONCURRENCY="1",
        ADDRESS_REFUSALS_PER_MINUTE="5",
        SIGN_IN_ATTEMPTS_PER_MINUTE="5",
        TRUSTED_PROXIES="1",
    ) as limited:
        business = approved(limited)
        assert business.send().status_code == 201
        guess = {"X-API-Key": "whsk_guess", "X-Forwarded-For": "203.0.113.9"}
        began = time.monotonic()
        codes = [business.send(**guess).json()["code"] for _ in range(10)]
        are_five_a_minute(codes, "invalid_api_key", "rate_limited", began)
        # A known key is none of the guesser's business, and nor is another address.
        assert business.send(**{"X-Forwarded-For": "203.0.113.9"}).status_code == 201
        elsewhere = guess | {"X-Forwarded-For": "203.0.113.9, 203.0.113.10"}
        assert business.send(**elsewhere).json()["code"] == "invalid_api_key"
        body = {"email": "a@shop.example", "password": "guess guess"}
        began = time.monotonic()
        statuses = [
            limited.http.post(
                "/users/auth/login/", json=body, headers={"X-Forwarded-For": "203.0.113.9"}
            ).status_code
            for _ in range(8)
        ]
        are_five_a_minute(statuses, 401, 429, began)


def are_five_a_minute(found, allowed, refused, began):
    """Assert that five were, and no more than were due since: on a busy machine some are."""
    assert set(found) == {allowed, refused}
    assert found[:5] == [allowed] * 5
    due = (time.monotonic() - began) / 60 * 5
    assert found.count(allowed) <= 5 + due


def test_the_order_id_is_a_new_one_each_time(sender):
    ids = {UUID(sender.send().json()["order_id"]) for _ in range(20)}
    assert len(ids) == 20
    assert {id_.version for id_ in ids} == {7}


def test_another_order_under_a_known_key_is_refused(api, tmp_path):
    with running_ingress(tmp_path, api.amqp_url, api.database_url, WEB_CONCURRENCY="1") as single:
        business, other = approved(single), approved(single)
        key = {"Idempotency-Key": "order-7"}
        first = business.send(**key)
        assert first.status_code == 201
        # The same order, as it was and in another layout.
        for body in (ORDER, json.dumps(ORDER, indent=2).encode()):
            assert business.send(body, **key).json() == first.json()
        for send in (business.send, lambda body, **_: business.standard(body, id_="order-7")):
            answer = send(ORDER | {"address": "elsewhere"}, **key)
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
            assert answer.json()["order_id"] == first.json()["order_id"]
        assert other.send(ORDER | {"address": "elsewhere"}, **key).status_code == 201
        order_id = first.json()["order_id"]
        for status in ("IN_TRANSIT", "DELIVERED"):
            body = {"type": "order.status_changed", "order_id": order_id, "tracking_status": status}
            assert business.send(body, **key).status_code == 201


def test_a_key_that_comes_with_another_number_is_refused(api, tmp_path):
    with running_ingress(tmp_path, api.amqp_url, api.database_url, WEB_CONCURRENCY="1") as single:
        business = approved(single)
        key, numbered = {"Idempotency-Key": "order-8"}, ORDER | {"order_number": "A-8"}
        first = business.send(numbered, **key)
        assert first.status_code == 201
        assert business.send(numbered, **key).json() == first.json()
        for body in (ORDER | {"order_number": "A-9"}, ORDER, numbered | {"address": "elsewhere"}):
            answer = business.send(body, **key)
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
            assert answer.json()["order_id"] == first.json()["order_id"]
        # Without the key, or under another one, the number says which order it is.
        for headers in ({}, {"Idempotency-Key": "order-9"}):
            assert business.send(numbered, **headers).json() == first.json()


def test_a_misspelt_member_is_warned_of_by_either_scheme_beside_the_receipt(sender):
    order = ORDER | {"tracking_nummber": "1Z", "note": "Ring."}
    for send in (sender.send, sender.standard):
        answer = send(order, Prefer="receipt")
        assert answer.status_code == 201
        assert answer.json()["warnings"] == [
            "$.tracking_nummber is not read: was $.tracking_number meant?"
        ]
        assert answer.json()["receipt"].count(".") == 2
        assert list(send(ORDER | {"note": "Ring."}).json()) == ["status", "order_id"]
