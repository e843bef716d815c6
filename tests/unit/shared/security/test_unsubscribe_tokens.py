"""Unsubscribe tokens, each for one account, order and address."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import new_id
from shared.security.unsubscribe_tokens import (
    LONGEST,
    SETTING,
    InvalidTokenError,
    UnsubscribeTokens,
)
from shared.validation.email_addresses import compared

OLD, NEW = (base64.b64encode(bytes([n]) * 16 + bytes(range(16))).decode() for n in (1, 2))
ACCOUNT, ORDER = new_id(), new_id()
ADDRESS = "zoe@shop.example"


def test_a_token_is_verified_to_its_content():
    tokens = UnsubscribeTokens([OLD])
    token = tokens.make(ACCOUNT, ORDER, ADDRESS)
    leaver = tokens.read(token)
    assert (leaver.account_id, leaver.order_id) == (ACCOUNT, ORDER)
    assert [leaver.hashed] == tokens.hashes(ACCOUNT, ADDRESS)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert len(token) <= LONGEST


def test_a_token_does_not_contain_the_address():
    raw = base64.urlsafe_b64decode(UnsubscribeTokens([OLD]).make(ACCOUNT, ORDER, ADDRESS) + "==")
    assert b"zoe" not in raw
    assert b"shop" not in raw


@given(st.integers(0, 67), st.integers(1, 255))
def test_a_changed_token_is_refused(place, change):
    tokens = UnsubscribeTokens([OLD])
    raw = bytearray(base64.urlsafe_b64decode(tokens.make(ACCOUNT, ORDER, ADDRESS) + "=="))
    raw[place] ^= change
    with pytest.raises(InvalidTokenError):
        tokens.read(base64.urlsafe_b64encode(raw).decode().rstrip("="))


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
def test_invalid_tokens_are_refused_with_the_same_error(text):
    with pytest.raises(InvalidTokenError) as refused:
        UnsubscribeTokens([OLD]).read(text)
    assert str(refused.value) == ""


def test_a_hash_is_no_signature_and_is_specific_to_an_account():
    tokens = UnsubscribeTokens([OLD])
    (one,), (other,) = tokens.hashes(ACCOUNT, ADDRESS), tokens.hashes(new_id(), ADDRESS)
    assert one.value != other.value
    signature = base64.urlsafe_b64decode(tokens.make(ACCOUNT, ORDER, ADDRESS) + "==")[-16:]
    assert signature != one.value


def test_keys_rotate():
    before, both, after = (UnsubscribeTokens(k) for k in ([OLD], [NEW, OLD], [NEW]))
    token = before.make(ACCOUNT, ORDER, ADDRESS)
    assert both.read(token).hashed in both.hashes(ACCOUNT, ADDRESS)
    assert both.hashes(ACCOUNT, ADDRESS)[0] == after.hashes(ACCOUNT, ADDRESS)[0]
    assert both.hashes(ACCOUNT, ADDRESS)[1] == before.hashes(ACCOUNT, ADDRESS)[0]
    assert after.read(both.make(ACCOUNT, ORDER, ADDRESS)).order_id == ORDER
    with pytest.raises(InvalidTokenError):
        after.read(token)
    assert SETTING == "UNSUBSCRIBE_KEYS"


@pytest.mark.parametrize(
    "other",
    ["ZOE@shop.example", "zoe@SHOP.Example", " zoe@shop.example\n"],
)
def test_spellings_of_an_address_have_one_hash(other):
    assert UnsubscribeTokens([OLD]).hashes(ACCOUNT, other) == UnsubscribeTokens([OLD]).hashes(
        ACCOUNT, ADDRESS
    )


def test_spellings_of_a_unicode_domain_are_one_address():
    ways = ("zoe@münchen.example", "zoe@MÜNCHEN.example", "Zoe@xn--mnchen-3ya.example")
    assert {compared(way) for way in ways} == {"zoe@xn--mnchen-3ya.example"}
    assert compared("zoe@shop.example") != compared("zoe+x@shop.example")
