"""Whose address a request counts for."""

import pytest
from falcon.testing import create_asgi_req
from structlog.testing import capture_logs

from shared.http import callers
from shared.http.callers import client_address
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
def test_it_is_the_peers_or_what_the_outermost_trusted_proxy_saw(
    configure, proxies, forwarded, address
):
    configure(TRUSTED_PROXIES=str(proxies))
    assert client_address(create_asgi_req(headers={"X-Forwarded-For": forwarded})) == address


@pytest.mark.parametrize(
    ("proxies", "forwarded", "peer", "told"),
    [
        ("0", "a", "127.0.0.1", 1),
        ("0", "a", "10.0.0.7", 1),
        ("0", "", "10.0.0.7", 0),
        ("1", "a", "10.0.0.7", 0),
        ("0", "a", "9.9.9.9", 0),  # anybody writes it, where clients connect directly
    ],
)
def test_a_proxy_that_is_not_counted_is_told_of_once(
    configure, monkeypatch, proxies, forwarded, peer, told
):
    """At every site: all who come through it are one client, and share what one may do."""
    configure(**PRODUCTION | {"TRUSTED_PROXIES": proxies, "CLIENTS_CONNECT_DIRECTLY": "true"})
    monkeypatch.setattr(callers, "_is_told", False)
    with capture_logs() as logs:
        for _ in range(3):
            req = create_asgi_req(headers={"X-Forwarded-For": forwarded})
            req.scope["client"] = (peer, 50_000)
            client_address(req)
    assert [line["event"] for line in logs] == ["proxy_not_counted"] * told
