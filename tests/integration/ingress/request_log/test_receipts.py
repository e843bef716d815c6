"""Receipts: signed at once or later, the same text, and anybody can verify them."""

import base64
import hashlib
import json
from datetime import UTC, datetime

import jwt
import pytest
from sqlalchemy import insert

from shared.db.models import WebhookRequest
from shared.ids import new_id
from tests.integration.arrange import sign, until
from tests.integration.ingress.conftest import ORDER, PATH, approved


@pytest.fixture
def keys(api):
    answer = api.http.get("/webhooks/receipts/keys/")
    assert answer.status_code == 200
    return jwt.PyJWKSet.from_dict(answer.json())


def ask(sender, prefer="receipt"):
    return sender.send(Prefer=prefer)


def verify(keys, receipt):
    header = jwt.get_unverified_header(receipt)
    return jwt.decode(receipt, keys[header["kid"]], algorithms=["EdDSA"], issuer="order-fellow")


def later(api, sender, event_id):
    return api.http.get(f"/webhooks/receipts/{event_id}/", headers=sender.bearer)


def test_a_receipt_says_what_was_accepted_and_verifies_with_the_published_keys(api, sender, keys):
    answer = ask(sender)
    assert answer.headers["preference-applied"] == "receipt"
    claims = verify(keys, answer.json()["receipt"])
    body = json.dumps(ORDER).encode()
    assert claims.pop("iat") <= datetime.now(UTC).timestamp()
    assert claims == {
        "iss": "order-fellow",
        "sub": str(sender.account_id),
        "jti": answer.json()["order_id"],
        "event_id": answer.json()["order_id"],
        "order_id": answer.json()["order_id"],
        "body_sha256": hashlib.sha256(body).hexdigest(),
    }
    header = jwt.get_unverified_header(answer.json()["receipt"])
    assert (header["alg"], header["typ"]) == ("EdDSA", "order-receipt+jwt")


def test_later_it_is_the_same_text(api, sender):
    answer = ask(sender).json()
    found = until(
        lambda: (got := later(api, sender, answer["order_id"])).status_code == 200 and got,
        "it is in the log",
    )
    assert found.json() == {"receipt": answer["receipt"]}


def test_it_is_there_later_also_for_who_did_not_ask(api, sender, keys):
    answer = sender.send().json()
    assert set(answer) == {"status", "order_id"}
    found = until(
        lambda: (got := later(api, sender, answer["order_id"])).status_code == 200 and got,
        "it is in the log",
    )
    assert verify(keys, found.json()["receipt"])["order_id"] == answer["order_id"]


@pytest.mark.parametrize("prefer", ["receipt", "Receipt", "wait=5, receipt", "receipt; foo=bar"])
def test_ways_to_ask(sender, prefer):
    assert "receipt" in ask(sender, prefer).json()


@pytest.mark.parametrize("prefer", ["", "wait=5", "receipts", "respond-async", "receipt=none,"])
def test_other_preferences_are_ignored(sender, prefer):
    answer = ask(sender, prefer)
    assert answer.status_code == 201
    assert "receipt" not in answer.json()
    assert "preference-applied" not in answer.headers


def test_a_refusal_gets_no_receipt(api, sender):
    raw = json.dumps(ORDER).encode()
    given = sign(sender.secret, raw) | {"X-Webhook-Signature": "0" * 64, "Prefer": "receipt"}
    answer = api.http.post(PATH, content=raw, headers=given)
    assert answer.status_code == 401
    assert set(answer.json()) == {"error", "code", "faults"}


def test_a_receipt_that_was_changed_does_not_verify(sender, keys):
    header, claims, signature = ask(sender).json()["receipt"].split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed["body_sha256"] = hashlib.sha256(b"another").hexdigest()
    forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    with pytest.raises(jwt.InvalidSignatureError):
        verify(keys, f"{header}.{forged}.{signature}")


def test_anothers_receipt_is_as_unknown_as_none(api, sender):
    order_id = sender.send().json()["order_id"]
    until(lambda: later(api, sender, order_id).status_code == 200, "its own is there")
    for answer in (
        later(api, approved(api), order_id),
        later(api, sender, "01890000-0000-7000-8000-000000000000"),
        later(api, sender, "nonsense"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "receipt_not_found")
    assert api.http.get(f"/webhooks/receipts/{order_id}/").status_code == 401


def test_an_order_that_could_not_be_stored_has_no_receipt(api, sender):
    event_id = new_id()
    with api.session() as session:
        session.execute(
            insert(WebhookRequest).values(
                at=datetime.now(UTC),
                account_id=sender.account_id,
                accepted=False,
                code="unavailable",
                event_id=event_id,
                order_id=event_id,
                scheme="x-api-key",
                body_sha256=b"0" * 32,
                latency_us=1,
                client_address="::1",
            )
        )
        session.commit()
    assert later(api, sender, event_id).status_code == 404


def test_a_receipt_opens_no_door(api, sender):
    receipt = ask(sender).json()["receipt"]
    given = {"Authorization": f"Bearer {receipt}"}
    assert api.http.get("/orders/", headers=given).status_code == 401


def test_a_new_key_signs_while_the_old_one_is_still_published(configure):
    from services.ingress.request_log import receipts

    def signed():
        receipts.signing_keys.cache_clear()
        return receipts.sign(
            account_id=new_id(),
            event_id="e",
            event_type="order.created",
            order_id="o",
            body_sha256="b",
            accepted_at=1.0,
        )

    def published():
        answer = receipts.keys(None, None)
        found = [
            {name: getattr(key, name) for name in key.__struct_fields__} for key in answer.body.keys
        ]
        return jwt.PyJWKSet.from_dict({"keys": found})

    old, new = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))
    configure(receipt_signing_keys=old)
    before = signed()
    configure(receipt_signing_keys=f"{new},{old}")
    after = signed()
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    for receipt in (before, after):
        verify(published(), receipt)
    receipts.signing_keys.cache_clear()
