"""The client's address of a request."""

import pytest
from falcon.testing import create_asgi_req
from structlog.testing import capture_logs

from shared.http import callers
from shared.http.callers import client_address, is_internal
from tests.unit.shared.config.test_settings import PRODUCTION


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "203.0.113.9", "127.0.0.1"),
        (1, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (2, "192.0.2.1, 198.51.100.1, 203.0.113.9", "198.51.100.1"),
        (2, "203.0.113.9", "127.0.0.1"),
        (1, "203.0.113.9:443", "203.0.113.9"),
        (1, "[2001:db8::7]:443", "2001:db8::7"),
        (1, "1.2.3.4, ", "127.0.0.1"),
        (1, "x" * 8_000, "x" * 64),
    ],
)
def test_it_is_the_peer_or_the_address_seen_by_the_outermost_trusted_proxy(
    configure, proxies, forwarded, address
):
    configure(TRUSTED_PROXIES=str(proxies))
    assert client_address(create_asgi_req(headers={"X-Forwarded-For": forwarded})) == address


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer", "logged"),
    [
        ("0", "a", "127.0.0.1", 1),
        ("0", "a", "10.0.0.7", 1),
        ("0", "", "10.0.0.7", 0),
        ("1", "a", "10.0.0.7", 0),
        ("0", "a", "9.9.9.9", 0),  # a client that connects directly may send the header
        ("1", "198.51.100.1, 10.0.0.7", "10.0.0.9", 1),  # one more proxy than counted
        ("1", "10.0.0.7", "10.0.0.9", 0),
        ("2", "203.0.113.9, 10.0.0.7", "10.0.0.9", 0),
        # The portal's calls for a browser in one's own network.
        ("2", ", ".join(["10.0.0.7"] * 10), "172.18.0.5", 0),
    ],
)
def test_a_proxy_that_is_not_counted_is_logged_once(
    configure, monkeypatch, proxies, forwarded, peer, logged
):
    """At every site: all clients behind it would share the limits of one."""
    configure(**PRODUCTION | {"TRUSTED_PROXIES": proxies, "CLIENTS_CONNECT_DIRECTLY": "true"})
    monkeypatch.setattr(callers, "_is_warned", False)
    with capture_logs() as logs:
        for _ in range(3):
            req = create_asgi_req(headers={"X-Forwarded-For": forwarded})
            req.scope["client"] = (peer, 50_000)
            client_address(req)
    assert [line["event"] for line in logs] == ["proxy_not_counted"] * logged


def test_the_address_of_a_sender_behind_its_own_proxy_is_parsed_once(configure, monkeypatch):
    """It is public at every request, so nothing is logged that would end the check."""
    configure(TRUSTED_PROXIES="1")
    monkeypatch.setattr(callers, "_is_warned", False)
    is_internal.cache_clear()
    parsed = []
    parse = callers.ipaddress.ip_address
    monkeypatch.setattr(
        callers.ipaddress, "ip_address", lambda text: parsed.append(text) or parse(text)
    )
    forwarded = {"X-Forwarded-For": "10.0.0.7, 8.8.4.4"}
    found = {client_address(create_asgi_req(headers=forwarded)) for _ in range(9)}
    assert (found, parsed) == ({"8.8.4.4"}, ["8.8.4.4"])
