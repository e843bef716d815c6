"""Standard Webhooks: the published vectors, its own library, and what must never match."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from services.ingress.webhook import standard_webhooks
from services.ingress.webhook.standard_webhooks import is_current, is_id, listed, matches, sign
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
def test_what_is_no_right_signature(header):
    assert not matches(KEY, SIGNED, listed(header))


def test_no_more_signatures_are_tried_than_the_bound():
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
