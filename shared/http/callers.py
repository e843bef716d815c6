"""Reads the client's address, the access token and the trace context of a request."""

import ipaddress
import re
from functools import lru_cache

import structlog
from falcon.asgi import Request

from shared.config.loading import settings
from shared.http.standing import not_signed_in
from shared.security import tokens
from shared.security.networks import without_port

MAX_ADDRESS = 64  # characters, for brackets, a zone and a port
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")  # W3C, 3.2
_is_warned = False
log = structlog.get_logger()


def bearer(req: Request) -> tokens.Token:
    """Return the verified access token of a request (RFC 6750, 2.1).

    Raises:
        ApiError: 401, if it is missing or invalid.
    """
    scheme, _, text = (req.get_header("Authorization") or "").partition(" ")
    try:
        if scheme.lower() == "bearer" and text:
            return tokens.check(text.strip(), "access")
    except tokens.InvalidTokenError:
        pass
    raise not_signed_in()


def client_address(req: Request) -> str:
    """Return the client's address: the peer, or the one seen by the outermost trusted proxy.

    With `TRUSTED_PROXIES=n` it is the n-th entry of `X-Forwarded-For` from the right: entries
    further left may be forged by the client.
    """
    hops = settings().trusted_proxies
    header = req.get_header("X-Forwarded-For")
    forwarded = [part.strip() for part in header.split(",")] if header else []
    if hops and len(forwarded) >= hops and forwarded[-hops]:
        # Some proxies pass on what the client sent, which may be long.
        address = without_port(forwarded[-hops][:MAX_ADDRESS])
    else:
        # Falcon's `remote_addr`, without the list of hops that it parses first.
        client = req.scope.get("client")
        address = client[0] if client else "127.0.0.1"
    # The portal repeats one address; a proxy would have added its own client's.
    is_repeated = 0 < hops < len(forwarded) and forwarded[-hops - 1] == forwarded[-hops]
    if len(forwarded) > hops and not is_repeated and not _is_warned and is_internal(address):
        _warn_of_proxy(address)
    return address


@lru_cache(maxsize=1024)  # senders behind a proxy of their own: at every request
def is_internal(address: str) -> bool:
    """Return whether an address is private (RFC 1918, RFC 4193) or of this machine."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_private or parsed.is_loopback


def _warn_of_proxy(peer: str) -> None:
    """Log once that the address taken for the client's is likely a proxy that is not counted.

    It is internal and has added an entry to `X-Forwarded-For`. All clients behind it would share
    the limits of one.
    """
    global _is_warned
    _is_warned = True
    if settings().environment == "production":
        log.warning("proxy_not_counted", setting="TRUSTED_PROXIES", peer=peer)


def traceparent(req: Request) -> str | None:
    """Return the valid W3C trace context of a request; None if it has none."""
    value = req.get_header("traceparent")
    return value if value and _TRACEPARENT.match(value) else None
