import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.environment import ConfigurationError
from shared.security.encryption import CannotOpenError, Sealer


def key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@given(st.binary(max_size=200), st.text(max_size=50))
def test_a_sealed_value_opens(plain, context):
    sealer = Sealer([key()])
    assert sealer.open(sealer.seal(plain, context), context) == plain


def test_two_seals_of_the_same_differ():
    sealer = Sealer([key()])
    assert sealer.seal(b"x", "c") != sealer.seal(b"x", "c")


def test_another_context_does_not_open():
    sealer = Sealer([key()])
    with pytest.raises(CannotOpenError):
        sealer.open(sealer.seal(b"x", "secret:1"), "secret:2")


@pytest.mark.parametrize("position", range(0, 40, 3))
def test_a_changed_byte_does_not_open(position):
    sealer = Sealer([key()])
    sealed = bytearray(sealer.seal(b"0123456789abcdef", "c"))
    sealed[position] ^= 1
    with pytest.raises(CannotOpenError):
        sealer.open(bytes(sealed), "c")


@pytest.mark.parametrize("length", [0, 3, 4, 10, 20])
def test_a_cut_value_does_not_open(length):
    sealer = Sealer([key()])
    with pytest.raises(CannotOpenError):
        sealer.open(sealer.seal(b"x", "c")[:length], "c")


def test_keys_rotate():
    old, new = key(), key()
    sealed = Sealer([old]).seal(b"x", "c")
    both = Sealer([new, old])
    assert both.open(sealed, "c") == b"x"
    assert not sealed.startswith(both.current_key_id)
    assert both.seal(b"x", "c").startswith(both.current_key_id)
    with pytest.raises(CannotOpenError):
        Sealer([new]).open(sealed, "c")


@pytest.mark.parametrize("bad", ["not base64!", base64.b64encode(b"short").decode()])
def test_a_bad_key_is_refused(bad):
    with pytest.raises(ConfigurationError, match="SECRET_ENCRYPTION_KEYS"):
        Sealer([bad])
