"""What a stranger may put where an account's id belongs."""

from uuid import uuid4

import pytest

from services.ingress.webhook import authentication


@pytest.mark.parametrize("form", ["{}", "urn:uuid:{}", "{{{}}}"])
def test_an_id_in_each_of_its_forms(form):
    id_ = uuid4()
    assert authentication.account_of(form.format(id_)) == id_


@pytest.mark.parametrize("text", ["x" * 46, "-" * 8_000, "0" * 32 + "-" * 14])
def test_what_is_too_long_to_be_an_id_is_not_kept(text):
    authentication._parsed.cache_clear()
    assert authentication.account_of(text) is None
    assert authentication._parsed.cache_info().currsize == 0
