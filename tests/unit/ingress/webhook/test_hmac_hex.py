"""Signatures, against the standard library's own and a published vector."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from services.ingress.webhook.hmac_hex import matches, sign


def test_a_published_vector():
    # RFC 4231, 4.3, test case 2
    assert sign(b"Jefe", b"what do ya want for nothing?").decode() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@given(st.binary(min_size=1), st.binary())
def test_the_same_as_the_standard_library(key, body):
    expected = hmac.new(key, body, hashlib.sha256).hexdigest().encode()
    assert sign(key, body) == expected
    assert matches(key, body, expected)
    assert matches(key, body, expected.upper())


@given(st.binary(min_size=1), st.binary(), st.binary())
def test_anything_else_does_not_match_and_raises_nothing(key, body, signature):
    assert matches(key, body, signature) == (signature.lower() == sign(key, body))


def test_a_prefix_is_not_enough():
    right = sign(b"key", b"body")
    assert not matches(b"key", b"body", right[:-1])
    assert not matches(b"key", b"body", right + b"0")
    assert not matches(b"key", b"body", b"sha256=" + right)
