"""The explanations of a refused signature by a private key."""

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.ingress.diagnosis.reasons import Secret, diagnose
from shared.ids import new_id

NOW = 1_700_000_000
BODY = b'{"a": 1}'
# The same in every process of tests: some are in tests' names.
OURS, REMOVED, NOBODYS = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(3))
KEYS = (
    Secret(new_id(), OURS.public_key().public_bytes_raw(), "active", is_public=True),
    Secret(new_id(), REMOVED.public_key().public_bytes_raw(), "revoked", is_public=True),
)


def entry(private=OURS, head=f"msg_1.{NOW}.", body=BODY, write="v1a,{}"):
    return write.format(base64.b64encode(private.sign(head.encode() + body)).decode())


def found(signature, keys=KEYS):
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": signature,
    }
    return diagnose(headers, BODY, (), NOW, public_keys=keys)


def test_a_right_public_key_signature():
    verdict = found(entry())
    assert (verdict.code, verdict.is_right, verdict.secret) == ("", True, KEYS[0])
    assert verdict.findings == ["The signature is right."]


def test_a_signature_by_a_removed_key():
    verdict = found(entry(REMOVED))
    assert (verdict.code, verdict.secret) == ("invalid_signature", KEYS[1])
    assert "removed or revoked" in " ".join(verdict.findings)


WRONG = "v1a," + base64.b64encode(bytes(64)).decode()


@pytest.mark.parametrize(
    ("signature", "says"),
    [
        (entry(NOBODYS), "fits none of your public keys"),
        (entry(head=""), "You signed the body alone"),
        (entry(head=f"{NOW}."), "`timestamp.body`"),
        (entry(body=BODY + b"\n"), "line feed at its end"),
        (entry(body=b'{"a":1}'), "re-serialised"),
        (entry(write="v1,{}"), "write `v1a,` before it"),
        (entry(write="{}"), "write `v1a,` before it"),
        (entry().rstrip("="), "padded by `=`"),
        ("v1a," + base64.b64decode(entry()[4:]).hex(), "standard base64"),
        ("v1a," + base64.b64encode(bytes(32)).decode(), "whose version must be `v1`"),
        ("v1a,AAAA", "has 3 bytes"),
        ("v1a,!!", "not base64"),
        (f"{WRONG} {WRONG} {entry()}", "Of `v1a` the first 2"),
        ("v2a,AAAA", "it must be `v1` or `v1a`"),
    ],
)
def test_mistakes_in_a_public_key_signature(signature, says):
    verdict = found(signature)
    assert verdict.code == "invalid_signature"
    assert not verdict.is_right
    assert says in " ".join(verdict.findings)


def test_an_account_without_a_public_key_is_told_how_to_add_one():
    verdict = found(entry(), ())
    assert verdict.code == "invalid_signature"
    assert "POST /webhook/public-keys/" in " ".join(verdict.findings)


def test_a_right_secret_beside_it_is_enough():
    raw = bytes(range(32))
    secret = Secret(new_id(), raw, "active")
    mac = base64.b64encode(hmac.digest(raw, f"msg_1.{NOW}.".encode() + BODY, "sha256")).decode()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": f"{entry(NOBODYS)} v1,{mac}",
    }
    verdict = diagnose(headers, BODY, (secret,), NOW, public_keys=KEYS)
    assert (verdict.code, verdict.secret) == ("", secret)
