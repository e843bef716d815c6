"""Public keys: accepted and refused texts."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from shared.security import webhook_keys
from shared.security.public_keys import PublicKeyError, encode, parse

P = 2**255 - 19
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = PRIVATE.public_key().public_bytes_raw()
# RFC 8032, 7.1, TEST 1 to 3.
VECTORS = (
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
)
# All eight points of small order and their non-canonical encodings (Chalkias, Garillot, Nikolaenko:
# "Taming the many EdDSAs", tables 2 and 3).
SMALL = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
)


@pytest.mark.parametrize("key", [RAW.hex(), *VECTORS])
def test_a_key_is_accepted(key):
    raw = bytes.fromhex(key)
    assert parse(encode(raw)) == raw
    assert encode(raw).startswith("whpk_")


@given(st.binary(min_size=32, max_size=32))
def test_every_generated_key_is_accepted(seed):
    raw = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert parse(encode(raw)) == raw


@pytest.mark.parametrize("key", SMALL)
def test_a_key_of_small_order_is_refused(key):
    with pytest.raises(PublicKeyError, match=r"small order|canonical"):
        parse(encode(bytes.fromhex(key)))


def test_the_library_accepts_a_key_of_small_order_and_forged_signatures():
    # Why we check it: with the identity as key and as R, S = 0 is valid for every message.
    identity = bytes.fromhex(SMALL[0])
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"any order at all")
    honest = Ed25519PublicKey.from_public_bytes(RAW)
    with pytest.raises(InvalidSignature):
        honest.verify(identity + bytes(32), b"any order at all")


def test_a_point_has_one_encoding():
    for y in range(P, 2**255):
        for sign in (0, 1 << 255):
            with pytest.raises(PublicKeyError):
                parse(encode((y | sign).to_bytes(32, "little")))


def test_a_value_that_is_not_a_point_is_refused():
    refused = 0
    for y in range(2, 66):
        try:
            parse(encode(y.to_bytes(32, "little")))
        except PublicKeyError as error:
            refused += "not a point" in str(error)
    assert 20 < refused < 44  # half of all


def pem(key, format_):
    if isinstance(key, Ed25519PrivateKey):
        return key.private_bytes(
            serialization.Encoding.PEM, format_, serialization.NoEncryption()
        ).decode()
    return key.public_bytes(serialization.Encoding.PEM, format_).decode()


SECRET = bytes(range(32))  # constant, because it is in names of tests
SEED = base64.b64encode(PRIVATE.private_bytes_raw()).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"whsk_{SEED}", "private key or a secret"),
        (webhook_keys.encode_key(SECRET), "private key or a secret"),
        (webhook_keys.encode_standard(SECRET), "private key or a secret"),
        (pem(PRIVATE, serialization.PrivateFormat.PKCS8), "private key or a secret"),
        (pem(PRIVATE.public_key(), serialization.PublicFormat.SubjectPublicKeyInfo), "PEM"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA", "OpenSSH"),
        (RAW.hex(), "hexadecimal"),
        (base64.b64encode(RAW).decode(), "written `whpk_`"),
        (f"WHPK_{base64.b64encode(RAW).decode()}", "written `whpk_`"),
        (encode(RAW).rstrip("="), "43 characters"),
        (encode(RAW) + "=", "43 characters"),
        (encode(RAW + b"1"), "43 characters"),
        (encode(RAW[1:]), "43 characters"),
        ("whpk_", "43 characters"),
        (encode(RAW)[:-2] + "1=", "43 characters|bits behind"),
        ("", "written `whpk_`"),
    ],
)
def test_other_texts_are_refused_without_quoting_them(text, says):
    with pytest.raises(PublicKeyError, match=says) as refused:
        parse(text)
    for part in (SEED, text[10:], RAW.hex()):
        assert not part or part not in str(refused.value)
