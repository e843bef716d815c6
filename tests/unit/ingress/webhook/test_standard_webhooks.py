"""Standard Webhooks: the published vectors, its library, and signatures that must not match."""

import base64
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from services.ingress.webhook import standard_webhooks
from services.ingress.webhook.standard_webhooks import (
    is_current,
    is_id,
    listed,
    listed_public,
    matches,
    sign,
    verifies,
)
from shared.security import webhook_keys

# From the specification's own examples.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", b'{"test": 2432232314}'
SIGNATURE = b"g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
SIGNED = b".".join((ID, TIMESTAMP, BODY))


def test_the_published_vector():
    assert sign(KEY, SIGNED) == SIGNATURE
    assert matches(KEY, SIGNED, listed(b"v1," + SIGNATURE))


def test_our_form_of_a_secret_is_what_the_library_takes():
    raw = webhook_keys.generate()
    shown = webhook_keys.encode_standard(raw)
    assert shown.startswith("whsec_")
    library = Webhook(shown)
    now = int(time.time())
    header = f"v1,{sign(raw, b'msg_1.%d.' % now + BODY).decode()}"
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": header}
    assert library.verify(BODY, headers) == {"test": 2432232314}


@pytest.mark.parametrize(
    "header",
    [
        b"v1," + SIGNATURE + b" v1,AAAA",
        b"v1,AAAA v1," + SIGNATURE,
        b"v1a,AAAA v2,BBBB v1," + SIGNATURE,
        b"nonsense  v1," + SIGNATURE,
        b"\xff\xfe v1," + SIGNATURE,
    ],
)
def test_one_right_signature_among_others_is_enough(header):
    assert matches(KEY, SIGNED, listed(header))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b" ",
        b"v1",
        b"v1,",
        SIGNATURE,
        b"v1" + SIGNATURE,
        b"v2," + SIGNATURE,
        b"V1," + SIGNATURE,
        b"v1a," + SIGNATURE,
        b"v1, " + SIGNATURE,
        b"v1,," + SIGNATURE,
        b"v1," + SIGNATURE.rstrip(b"="),
        b"v1," + SIGNATURE + b"=",
        b"v1," + SIGNATURE.replace(b"+", b"-").replace(b"/", b"_"),
        b"v1," + SIGNATURE.lower(),
        b"v1," + SIGNATURE + b",",
        b"v1,\xff\xfe",
        b"v1,AAAA " * standard_webhooks.MAX_SIGNATURES + b"v1," + SIGNATURE,
    ],
)
def test_wrong_signatures(header):
    assert not matches(KEY, SIGNED, listed(header))


def test_the_number_of_signatures_is_limited():
    assert len(listed(b"v1,x " * 100_000)) == standard_webhooks.MAX_SIGNATURES


@pytest.mark.parametrize(
    ("timestamp", "current"),
    [
        (b"1000", True),
        (b"700", True),
        (b"699", False),
        (b"1300", True),
        (b"1301", False),
        (b"0001000", True),
        (b"-1000", False),
        (b"+1000", False),
        (b"1000.0", False),
        (b"1_000", False),
        (b" 1000", False),
        (b"1000\n", False),
        (b"", False),
        (b"1e3", False),
        ("١٠٠٠".encode(), False),
        (b"9" * 5000, False),
    ],
)
def test_the_tolerance_goes_both_ways(timestamp, current):
    assert is_current(timestamp, 1000.0) is current


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (ID, True),
        (b"0197f2c3-4b5a-7c6d-8e9f-0a1b2c3d4e5f", True),
        (b"x" * 255, True),
        (b"x" * 256, False),
        (b"a.b", False),
        (b"", False),
        (b"a b", False),
        (b"a\tb", False),
        (b"a\n", False),
        (b"\x00", False),
        (b"\x7f", False),
        (b"caf\xc3\xa9", False),
    ],
)
def test_an_id_has_no_dot_and_nothing_invisible(value, good):
    assert is_id(value) is good


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(min_size=1, max_size=40))
def test_no_bytes_raise_and_only_the_right_ones_match(signed, header, key):
    right = sign(key, signed)
    assert matches(key, signed, listed(header)) == (right in listed(header))
    assert matches(key, signed, listed(b"v1," + right + b" " + header))


# What the specification's own library in Go expects (webhook_asymmetric_test.go); those in Python
# and JavaScript know no `v1a`.
PRIVATE = Ed25519PrivateKey.from_private_bytes(
    base64.b64decode("VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=")
)
PUBLIC = PRIVATE.public_key()
PUBLIC_SIGNATURE = (
    b"tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag=="
)


def test_the_published_vector_of_a_public_key():
    assert verifies(PUBLIC, SIGNED, listed_public(b"v1a," + PUBLIC_SIGNATURE))
    assert not verifies(PUBLIC, SIGNED + b" ", listed_public(b"v1a," + PUBLIC_SIGNATURE))
    assert not matches(KEY, SIGNED, listed(b"v1a," + PUBLIC_SIGNATURE))


@pytest.mark.parametrize(
    "header",
    [
        b"v1," + SIGNATURE + b" v1a," + PUBLIC_SIGNATURE,
        b"v1a," + base64.b64encode(bytes(64)) + b" v1a," + PUBLIC_SIGNATURE,
        b"v1a,AAAA v1a,BBBB v1a," + PUBLIC_SIGNATURE,
        b"v2,AAAA nonsense  v1a," + PUBLIC_SIGNATURE + b" v1a,AAAA",
    ],
)
def test_one_right_signature_by_a_public_key_among_others_is_enough(header):
    assert verifies(PUBLIC, SIGNED, listed_public(header))


LATER = b"v1a," + base64.b64encode(bytes(64)) + b" "


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"v1a",
        b"v1a,",
        PUBLIC_SIGNATURE,
        b"v1," + PUBLIC_SIGNATURE,
        b"V1A," + PUBLIC_SIGNATURE,
        b"v1a, " + PUBLIC_SIGNATURE,
        b"v1a,," + PUBLIC_SIGNATURE,
        b"v1a," + PUBLIC_SIGNATURE[:-1],
        b"v1a," + PUBLIC_SIGNATURE.rstrip(b"="),
        b"v1a," + PUBLIC_SIGNATURE + b"=",
        b"v1a," + PUBLIC_SIGNATURE.replace(b"/", b"_"),
        b"v1a," + PUBLIC_SIGNATURE[:-3] + b"h==",  # another writing of the same bytes
        b"v1a," + base64.b64decode(PUBLIC_SIGNATURE).hex().encode(),
        b"v1a," + SIGNATURE,
        b"v1a,\xff\xfe",
        LATER * standard_webhooks.MAX_PUBLIC_SIGNATURES + b"v1a," + PUBLIC_SIGNATURE,
        b"v1,AAAA " * standard_webhooks.MAX_SIGNATURES + b"v1a," + PUBLIC_SIGNATURE,
    ],
)
def test_wrong_signatures_by_a_public_key(header):
    assert not verifies(PUBLIC, SIGNED, listed_public(header))


def test_a_signature_with_another_s_that_fits_is_refused():
    # RFC 8032, 5.1.7, step 1: S is less than the order of the group, or one signature were many.
    raw = base64.b64decode(PUBLIC_SIGNATURE)
    order = 2**252 + 27742317777372353535851937790883648493
    other = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    assert not verifies(PUBLIC, SIGNED, [other])


def test_the_number_of_signatures_by_public_keys_is_limited():
    assert len(listed_public(LATER * 1000)) == standard_webhooks.MAX_PUBLIC_SIGNATURES


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_raise_in_a_signature_by_a_public_key(signed, header):
    right = base64.b64encode(PRIVATE.sign(signed))
    assert verifies(PUBLIC, signed, listed_public(b"v1a," + right + b" " + header))
    assert not verifies(PUBLIC, signed + b".", listed_public(b"v1a," + right))
    assert listed_public(header) == [] or b"v1a," in header
