"""Orders signed by Standard Webhooks: the unmodified library passes, everything else is a 401."""

import json
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import update
from standardwebhooks.webhooks import Webhook

from services.ingress.webhook import rules
from services.ingress.webhook.signature_text import CURES
from shared.bus.contract.events import SecretRotate, decode
from shared.db.models import WebhookSecret
from shared.ids import new_id
from tests.integration.arrange import account, by_each_worker, take, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, approved, exchange, standard_headers

RAW = json.dumps(ORDER).encode()
INVALID = {
    "error": "Invalid signature",
    "code": "invalid_signature",
    "faults": [CURES["standard_webhooks"]],
}
EXPIRED = "Webhook secret expired. New secret generated. Please update your configuration."


def drain(api, queue):
    found = []
    while (message := take(api.amqp_url, queue)) is not None:
        found.append(decode(message.properties["type"], message.body))
    return found


def test_the_library_signs_and_passes(api, sender):
    drain(api, "orders.intake")
    answer = sender.standard(id_="msg_1")
    assert answer.status_code == 201, answer.text
    (order,) = drain(api, "orders.intake")
    assert str(order.order_id) == answer.json()["order_id"]
    assert order.account_id == sender.account_id
    assert order.customer_details.name == "Zoë Ade"


def test_its_own_shape_of_a_body(api, sender):
    drain(api, "orders.intake")
    shaped = {"type": "order.created", "timestamp": "2026-01-02T03:04:05Z", "data": ORDER}
    assert sender.standard(shaped).status_code == 201
    (order,) = drain(api, "orders.intake")
    assert order.item_summary == ORDER["item_summary"]


def test_without_the_trailing_slash(api, sender):
    headers = standard_headers(sender.signing_secret, RAW)
    assert api.http.post(sender.path[:-1], content=RAW, headers=headers).status_code == 201


def test_the_two_forms_are_one_secret(api, sender):
    shown = api.http.get("/webhook/secret/", headers=sender.bearer).json()
    assert shown["signing_secret"] == sender.signing_secret
    assert shown["secret_key"] == sender.secret
    assert sender.send().status_code == sender.standard().status_code == 201


def signed(sender):
    return standard_headers(sender.signing_secret, RAW)


def changed(**changes):
    names = {"id": "webhook-id", "timestamp": "webhook-timestamp", "signature": "webhook-signature"}
    return lambda headers: headers | {names[n]: v for n, v in changes.items()}


def of_signature(change):
    return lambda h: h | {"webhook-signature": change(h["webhook-signature"])}


def without(name):
    return lambda headers: {n: v for n, v in headers.items() if n != name}


@pytest.mark.parametrize(
    ("bend", "status", "code"),
    [
        (lambda headers: headers, 201, ""),
        (of_signature(lambda s: f"v1,AAAA {s}"), 201, ""),
        (of_signature(lambda s: f"{s} v1,AAAA"), 201, ""),
        (of_signature(lambda s: f"v1a,AAAA v2,BBBB {s}"), 201, ""),
        (of_signature(lambda s: f"nonsense {s}"), 201, ""),
        (without("webhook-id"), 401, "missing_authentication"),
        (without("webhook-timestamp"), 401, "missing_authentication"),
        (without("webhook-signature"), 401, "missing_authentication"),
        (changed(id=""), 401, "missing_authentication"),
        (changed(timestamp=""), 401, "missing_authentication"),
        (changed(signature=""), 401, "missing_authentication"),
        (changed(id="msg_other"), 401, "invalid_signature"),
        (changed(id="msg.with.dots"), 401, "invalid_signature"),
        (changed(id="x" * 256), 401, "invalid_signature"),
        (changed(id="a b"), 401, "invalid_signature"),
        (changed(timestamp="x"), 401, "invalid_timestamp"),
        (changed(timestamp="1614265330"), 401, "invalid_timestamp"),
        (changed(timestamp="99999999999"), 401, "invalid_timestamp"),
        (changed(timestamp="-1"), 401, "invalid_timestamp"),
        (changed(timestamp="1e9"), 401, "invalid_timestamp"),
        (changed(timestamp="9" * 5000), 401, "invalid_timestamp"),
        (lambda h: changed(timestamp=h["webhook-timestamp"] + ".0")(h), 401, "invalid_timestamp"),
        (changed(signature="v1"), 401, "invalid_signature"),
        (changed(signature="v1,"), 401, "invalid_signature"),
        (changed(signature=","), 401, "invalid_signature"),
        (changed(signature="v1,AAAA"), 401, "invalid_signature"),
        (changed(signature="v1,!!!!"), 401, "invalid_signature"),
        (changed(signature="v1,AAAA" + " v1,AAAA" * 1000), 401, "invalid_signature"),
        (of_signature(lambda s: s.removeprefix("v1,")), 401, "invalid_signature"),
        (of_signature(lambda s: s.replace("v1,", "v2,")), 401, "invalid_signature"),
        (of_signature(lambda s: s.replace("v1,", "v1a,")), 401, "invalid_signature"),
        (of_signature(lambda s: s.replace(",", "")), 401, "invalid_signature"),
        (of_signature(lambda s: s.rstrip("=")), 401, "invalid_signature"),
        (of_signature(lambda s: "v1,AAAA " * 16 + s), 401, "invalid_signature"),
    ],
)
def test_the_conformance_table(api, sender, published, bend, status, code):
    answer = api.http.post(sender.path, content=RAW, headers=bend(signed(sender)))
    assert (answer.status_code, answer.json().get("code", "")) == (status, code)
    assert published.since() == (1 if status == 201 else 0)


def as_lines(headers, *more):
    lines = [f"{name}: {value}".encode() for name, value in headers.items()]
    return [*lines, b"Content-Length: %d" % len(RAW), *more]


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_given_twice_or_in_other_bytes(api, sender, published, name):
    headers = signed(sender)
    same = f"{name.title()}: {headers[name]}".encode()
    for more in (same, name.encode() + b": other"):
        status, answer = exchange(api, *as_lines(headers, more), body=RAW, path=sender.path)
        assert (status, answer) == (401, INVALID | {"faults": [rules.TWICE, *INVALID["faults"]]})
    for value in (b"\xff\xfe\xe9", "Zoë".encode(), b"v1,\xff"):
        lines = [b"%s: %s" % (name.encode(), value), *as_lines(without(name)(headers))]
        status, answer = exchange(api, *lines, body=RAW, path=sender.path)
        assert (status, answer["code"]) in {(401, "invalid_signature"), (401, "invalid_timestamp")}
    assert published.since() == 0


def test_a_chunked_body_is_whole_or_refused(api, sender, published):
    def send(body, pieces):
        lines = [
            *(
                f"{n}: {v}".encode()
                for n, v in standard_headers(sender.signing_secret, body).items()
            ),
            b"Transfer-Encoding: chunked",
        ]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        return exchange(api, *lines, body=framed, path=sender.path)

    assert send(RAW, [RAW[:7], RAW[7:8], RAW[8:]])[0] == 201
    assert send(RAW, [RAW[:7], RAW[8:]]) == (401, INVALID)
    big = RAW[:-1] + b" " * 300_000 + b"}"
    status, answer = send(big, [big[i : i + 50_000] for i in range(0, len(big), 50_000)])
    assert (status, answer["code"]) == (413, "body_too_large")
    assert published.since() == 1


def test_an_account_that_is_not_there_is_answered_as_a_wrong_signature(api, sender, published):
    with api.session() as session:
        without_a_secret = account(session).id
    revoked = approved(api)
    with api.session() as session:
        theirs = WebhookSecret.account_id == revoked.account_id
        session.execute(update(WebhookSecret).where(theirs).values(state="revoked"))
        session.commit()
    other = approved(api)
    headers = standard_headers(other.signing_secret, RAW)
    named = [sender.account_id, without_a_secret, new_id(), UUID(int=0), "7", "%00", "a" * 300]
    answers = [
        api.http.post(f"/webhooks/{name}/orders/", content=RAW, headers=headers) for name in named
    ]
    assert {a.status_code for a in answers} == {401}
    assert [a.json() for a in answers] == [INVALID] * len(named)
    assert len({a.content for a in answers}) == 1
    assert len({tuple(sorted(set(a.headers) - {"date"})) for a in answers}) == 1
    assert published.since() == 0
    until(lambda: revoked.standard().json() == INVALID, "the revocation is known")
    published.before = published.count()
    too_large = [
        api.http.post(f"/webhooks/{name}/orders/", content=b"x" * 262_145, headers=headers)
        for name in named
    ]
    assert {a.status_code for a in too_large} == {413}
    assert published.since() == 0


def test_a_stale_request_is_told_the_servers_time(api, sender):
    for minutes in (-6, 6):
        at = datetime.now(UTC) + timedelta(minutes=minutes)
        headers = standard_headers(sender.signing_secret, RAW, at=at)
        answer = api.http.post(sender.path, content=RAW, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_timestamp")
        assert abs(answer.json()["server_time"] - time.time()) < 60
    at = datetime.now(UTC) - timedelta(minutes=4)
    headers = standard_headers(sender.signing_secret, RAW, at=at)
    assert api.http.post(sender.path, content=RAW, headers=headers).status_code == 201


def test_while_secrets_change_either_signs_and_both_together(api, sender):
    answer = api.http.post("/webhook/secret/", headers=sender.bearer)
    new = answer.json()["signing_secret"]
    at, id_ = datetime.now(UTC), "msg_7"
    both = [Webhook(s).sign(id_, at, RAW.decode()) for s in (new, sender.signing_secret)]
    headers = standard_headers(new, RAW, id_, at)
    until(
        lambda: api.http.post(sender.path, content=RAW, headers=headers).status_code == 201,
        "the new one is known",
    )
    for given in (both[1], " ".join(both), " ".join(reversed(both))):
        sent = headers | {"webhook-signature": given}
        assert api.http.post(sender.path, content=RAW, headers=sent).status_code == 201


def test_an_expired_secret_is_told_so_and_replaced(api, sender):
    drain(api, "secrets.rotate")
    with api.session() as session:
        theirs = WebhookSecret.account_id == sender.account_id
        session.execute(
            update(WebhookSecret)
            .where(theirs)
            .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )
        session.commit()

    def told():
        answers = by_each_worker(api.pid, sender.standard)
        return answers[-1] if all(a.status_code == 401 for a in answers) else None

    answer = until(told, "the poll tells every worker")
    assert answer.json() == {"error": EXPIRED, "code": "secret_expired"}
    commands = drain(api, "secrets.rotate")
    assert 1 <= len(commands) <= 2
    assert isinstance(commands[0], SecretRotate)
    assert commands[0].cause == "expired_use"
    wrong = sender.standard(**{"webhook-signature": "v1,AAAA"})
    assert wrong.json()["error"] == INVALID["error"]
    assert wrong.json()["faults"][1:] == INVALID["faults"]


def test_a_secret_that_no_key_opens_is_our_trouble_and_not_the_senders(api, tmp_path):
    with running_ingress(tmp_path, api.amqp_url, api.database_url) as other:
        business = approved(other)
        with other.session() as session:
            theirs = WebhookSecret.account_id == business.account_id
            session.execute(update(WebhookSecret).where(theirs).values(sealed=b"unreadable" * 6))
            session.commit()
        answer = until(
            lambda: (a := business.standard()).status_code == 503 and a, "the poll tells"
        )
        assert answer.headers["retry-after"]
        assert business.send().status_code == 201
