"""Public keys: over the API, in the database, and at the ingress, where they end as secrets do."""

import base64
import hashlib
import hmac
import json
import subprocess
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from services.ingress.webhook.signature_text import CURES
from shared.bus.contract.events import SecretKeyRemoved, decode
from shared.bus.contract.message import message_for
from shared.db.models import OutboxMessage, WebhookPublicKey
from shared.ids import new_id
from shared.security.public_keys import encode
from tests.integration.arrange import access_token, account, by_each_worker, publish, until
from tests.integration.conftest import running_ingress
from tests.integration.ingress.conftest import ORDER, approved

RAW = json.dumps(ORDER).encode()
PATH = "/webhook/public-keys/"
INVALID = {
    "error": "Invalid signature",
    "code": "invalid_signature",
    "faults": [CURES["standard_webhooks"]],
}


@pytest.fixture
def private():
    return Ed25519PrivateKey.generate()


@pytest.fixture
def sender(api):
    return approved(api)


def written(private):
    return encode(private.public_key().public_bytes_raw())


def add(api, sender, private):
    return api.http.post(PATH, json={"public_key": written(private)}, headers=sender.bearer)


def signed(private, body=RAW, more=""):
    id_, stamp = f"msg_{new_id()}", str(int(time.time()))
    signature = private.sign(f"{id_}.{stamp}.".encode() + body)
    return {
        "Content-Type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": stamp,
        "webhook-signature": f"{more}v1a,{base64.b64encode(signature).decode()}",
    }


def send(api, sender, private, **more):
    return api.http.post(sender.path, content=RAW, headers=signed(private, **more))


def all_answer(api, sender, private, status):
    """Whether every worker does."""
    answers = by_each_worker(api.pid, lambda: send(api, sender, private).status_code)
    return set(answers) == {status}


def facts(api, account_id):
    with api.session() as session:
        rows = session.scalars(
            select(OutboxMessage)
            .where(OutboxMessage.correlation_id == str(account_id))
            .order_by(OutboxMessage.sequence)
        )
        return [(row.type, decode(row.type, row.body)) for row in rows]


def test_a_key_signs_from_when_it_is_added_until_it_is_removed(api, sender, private):
    assert send(api, sender, private).json() == INVALID
    answer = add(api, sender, private)
    assert answer.status_code == 201, answer.text
    key = answer.json()
    assert key["public_key"] == written(private)
    until(lambda: all_answer(api, sender, private, 201), "every worker knows it")
    # In any mix; either way to sign goes on.
    assert send(api, sender, private, more="v1,AAAA v1a,BBBB ").status_code == 201
    assert sender.standard().status_code == sender.send().status_code == 201

    def shown():
        (found,) = api.http.get(PATH, headers=sender.bearer).json()["public_keys"]
        return found

    # The workers count one after the other, each what it has seen.
    until(lambda: shown()["last_used_at"], "its use is counted")
    until(lambda: 0 < shown()["share_of_last_day"] < 1, "the other secret's use is counted too")
    gone = api.http.delete(f"{PATH}{key['id']}/", headers=sender.bearer)
    assert gone.status_code == 204
    until(lambda: all_answer(api, sender, private, 401), "the poll tells every worker")
    assert sender.standard().status_code == 201
    assert api.http.get(PATH, headers=sender.bearer).json() == {"public_keys": []}
    told = [fact for fact in facts(api, sender.account_id) if fact[0].startswith("secret.key_")]
    assert [type_ for type_, _ in told] == ["secret.key_added", "secret.key_removed"]
    assert all(fact.public_key == written(private) for _, fact in told)


def test_an_event_ends_a_key_without_the_database(api, sender, private):
    key = add(api, sender, private).json()
    until(lambda: all_answer(api, sender, private, 201), "every worker knows it")
    fact = SecretKeyRemoved(
        account_id=sender.account_id,
        company_name="Kettle & Co",
        email="owner@kettle.example",
        key_id=key["id"],
        public_key=key["public_key"],
        address="192.0.2.7",
        secret_ids=(key["id"],),
    )
    publish(api.amqp_url, message_for(fact, source="tests", correlation_id=sender.account_id))
    until(lambda: all_answer(api, sender, private, 401), "every worker has heard of it")


def test_openssl_signs_and_passes(api, sender, private, tmp_path):
    add(api, sender, private)
    until(lambda: all_answer(api, sender, private, 201), "every worker knows it")
    key, data = tmp_path / "key.pem", tmp_path / "signed"
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    headers = signed(private)
    data.write_bytes(f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + RAW)
    command = ["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", data]
    made = subprocess.run(command, capture_output=True, check=True).stdout
    headers["webhook-signature"] = f"v1a,{base64.b64encode(made).decode()}"
    assert api.http.post(sender.path, content=RAW, headers=headers).status_code == 201


def test_another_businesss_key_signs_for_nobody_else(api, sender, private):
    other = approved(api)
    # The same public key may be two businesses': it is no secret, so nobody can take it first.
    assert add(api, sender, private).status_code == add(api, other, private).status_code == 201
    until(lambda: all_answer(api, sender, private, 201), "known")
    third = approved(api)
    assert send(api, third, private).json() == INVALID
    assert (
        api.http.delete(
            f"{PATH}{api.http.get(PATH, headers=other.bearer).json()['public_keys'][0]['id']}/",
            headers=third.bearer,
        ).json()["code"]
        == "public_key_not_found"
    )


def test_a_public_key_is_no_x_api_key(api, sender, private):
    add(api, sender, private)
    until(lambda: all_answer(api, sender, private, 201), "known")
    for key in (written(private), written(private).replace("whpk_", "whsk_")):
        headers = {
            "X-API-Key": key,
            "X-Webhook-Signature": hmac.new(key.encode(), RAW, hashlib.sha256).hexdigest(),
        }
        answer = api.http.post("/webhooks/orders/", content=RAW, headers=headers)
        assert answer.json()["code"] == "invalid_api_key"
    # Nor is it a key of an HMAC.
    raw = private.public_key().public_bytes_raw()
    head = signed(private)
    mac = hmac.digest(
        raw, f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + RAW, "sha256"
    )
    head["webhook-signature"] = f"v1,{base64.b64encode(mac).decode()}"
    assert api.http.post(sender.path, content=RAW, headers=head).json() == INVALID


def test_what_is_refused(api, sender, private):
    def code(public_key):
        sent = api.http.post(PATH, json={"public_key": public_key}, headers=sender.bearer)
        return sent.status_code, sent.json()["code"]

    assert code("nonsense") == (400, "invalid_public_key")
    assert code(encode(bytes(32))) == (400, "invalid_public_key")
    assert add(api, sender, private).status_code == 201
    assert code(written(private)) == (409, "public_key_known")
    for _ in range(2):
        assert add(api, sender, Ed25519PrivateKey.generate()).status_code == 201
    assert code(written(Ed25519PrivateKey.generate())) == (409, "too_many_public_keys")
    gone = api.http.delete(f"{PATH}{new_id()}/", headers=sender.bearer)
    assert (gone.status_code, gone.json()["code"]) == (404, "public_key_not_found")
    assert api.http.delete(f"{PATH}x/", headers=sender.bearer).status_code == 404
    assert api.http.post(PATH, json={"public_key": written(private)}).status_code == 401


def test_a_private_key_that_is_pasted_is_nowhere_kept(api, sender, private, tmp_path):
    seed = base64.b64encode(private.private_bytes_raw()).decode()
    with running_ingress(tmp_path, api.amqp_url, api.database_url) as other:
        answer = other.http.post(PATH, json={"public_key": f"whsk_{seed}"}, headers=sender.bearer)
        assert answer.json()["code"] == "invalid_public_key"
        assert "private key" in answer.json()["error"]
        assert seed not in answer.text
    assert seed not in (tmp_path / "ingress.log").read_text()
    with api.session() as session:
        theirs = WebhookPublicKey.account_id == sender.account_id
        assert session.scalars(select(WebhookPublicKey).where(theirs)).all() == []


@pytest.mark.parametrize("status", [None, "pending", "rejected", "revoked"])
def test_only_an_approved_business_may_have_one(api, private, status):
    with api.session() as session:
        made = account(session, status=status)
    bearer = {"Authorization": f"Bearer {access_token(made.id)}"}
    answer = api.http.post(PATH, json={"public_key": written(private)}, headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (403, "kyc_approval_required")
    # The database says so too, whoever asks it.
    with pytest.raises(IntegrityError, match="is not approved"), api.engine.begin() as hand:
        hand.execute(
            text(
                "INSERT INTO webhook_public_keys (id, account_id, public_key, state) "
                "VALUES (gen_random_uuid(), :account, :key, 'active')"
            ),
            {"account": made.id, "key": private.public_key().public_bytes_raw()},
        )


def test_a_key_ends_with_the_approval_in_the_same_transaction(api, sender, private):
    key = add(api, sender, private).json()
    until(lambda: all_answer(api, sender, private, 201), "every worker knows it")
    with api.engine.begin() as hand:
        hand.execute(
            text("UPDATE kyc_applications SET status = 'revoked' WHERE account_id = :account"),
            {"account": sender.account_id},
        )
        row = hand.execute(
            text("SELECT state, revoked_with FROM webhook_public_keys WHERE id = :id"),
            {"id": key["id"]},
        ).one()
        assert row.state == "revoked"
        assert row.revoked_with is not None
    until(lambda: all_answer(api, sender, private, 401), "the poll tells every worker")
    with pytest.raises(IntegrityError, match="does not go back"), api.engine.begin() as hand:
        hand.execute(
            text("UPDATE webhook_public_keys SET state = 'active' WHERE id = :id"),
            {"id": key["id"]},
        )
