import pytest

from shared.security.networks import NetworkError, is_within, network_of, parse, valid_networks


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("203.0.113.7", "203.0.113.7/32"),
        (" 203.0.113.7 ", "203.0.113.7/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("203.0.113.0/255.255.255.0", "203.0.113.0/24"),
    ],
)
def test_a_network_has_one_form(given, canonical):
    assert str(parse(given)) == canonical


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("203.0.113.7/24", "write 203.0.113.0/24"),
        ("2001:db8::1/32", "write 2001:db8::/32"),
        ("203.0.113", "203.0.113.0/24 or 2001:db8::/32"),
        ("203.0.113.0/33", "not a network"),
        ("010.0.0.1", "not a network"),
        ("kettle.example", "not a network"),
        ("", "not a network"),
        ("::ffff:203.0.113.0/120", "write it as IPv4"),
        ("\x00", "not a network"),
    ],
)
def test_an_invalid_network_is_refused_with_a_correction(given, says):
    with pytest.raises(NetworkError, match=says):
        parse(given)


@pytest.mark.parametrize(
    ("address", "within"),
    [
        ("203.0.113.7", True),
        ("203.0.114.7", False),
        ("::ffff:203.0.113.7", True),
        ("::ffff:203.0.114.7", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("unknown", False),
        ("203.0.113.7:443", False),
        ("", False),
    ],
)
def test_addresses_within_networks(address, within):
    assert is_within(address, valid_networks(["203.0.113.0/24", "2001:db8::/32"])) is within


def test_invalid_stored_networks_match_no_address():
    assert valid_networks(["nonsense", "203.0.113.7/24"]) == []


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:50123", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("x" * 100, "x" * 64),
        ("", ""),
    ],
)
def test_the_network_that_a_client_counts_as(address, network):
    assert network_of(address) == network
