"""Tracking links, which cannot be forged for another order."""

import base64

import pytest

from shared.ids import new_id
from shared.security import tracking

OTHER = base64.b64encode(bytes(range(7, 39))).decode()
ORDER = new_id()


def test_a_link_leads_to_its_order(configure):
    configure()
    token = tracking.token_for(ORDER)
    assert tracking.link_of(token) == tracking.Link(ORDER, 0)
    assert token.isascii()
    assert "=" not in token


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token + "=",
        lambda token: " " + token,
        lambda token: "_" + token[1:],
        lambda token: token[:-2] + ("AA" if token[-2:] != "AA" else "BA"),
        lambda token: token[:22],
        lambda token: "ü" * 43,
        lambda token: base64.urlsafe_b64encode(new_id().bytes).decode().rstrip("=") + token[22:],
    ],
)
def test_a_changed_link_is_refused(configure, spoilt):
    configure()
    with pytest.raises(tracking.InvalidLinkError):
        tracking.link_of(spoilt(tracking.token_for(ORDER)))


def test_one_link_has_one_form(configure):
    """Base64 leaves bits of its last character unused (RFC 4648, 3.5)."""
    configure()
    token = tracking.token_for(ORDER)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    taken = []
    for last in alphabet:
        try:
            tracking.link_of(token[:-1] + last)
        except tracking.InvalidLinkError:
            continue
        taken.append(last)
    assert taken == [token[-1]]


def test_links_of_listed_older_keys_are_valid(configure):
    configure(tracking_keys=OTHER)
    token = tracking.token_for(ORDER)
    own = configure(tracking_keys="").tracking_keys
    with pytest.raises(tracking.InvalidLinkError):
        tracking.link_of(token)
    configure(tracking_keys=f"{own},{OTHER}")
    assert tracking.link_of(token) == tracking.Link(ORDER, 0)
    assert tracking.token_for(ORDER) != token


def test_each_link_number_has_its_own_token(configure):
    configure()
    tokens = {number: tracking.token_for(ORDER, number) for number in (0, 1, 2, 70_000)}
    assert len(set(tokens.values())) == 4
    for number, token in tokens.items():
        assert tracking.link_of(token) == tracking.Link(ORDER, number)
    # Link 0 has one form, without a number.
    named = ORDER.bytes + bytes(4)
    written = base64.urlsafe_b64encode(named + tracking._mac(tracking.keys()[0], named))
    with pytest.raises(tracking.InvalidLinkError):
        tracking.link_of(written.decode().rstrip("="))


def test_a_link_of_another_length_is_refused(configure):
    configure()
    for named in (b"", ORDER.bytes[:8], ORDER.bytes + b"\1", ORDER.bytes + bytes(8)):
        written = base64.urlsafe_b64encode(named + tracking._mac(tracking.keys()[0], named))
        with pytest.raises(tracking.InvalidLinkError):
            tracking.link_of(written.decode().rstrip("="))
