"""Whose a request is: the client's address, the token that it shows, and its trace."""

import ipaddress
import re

import structlog
from falcon.asgi import Request

from shared.config.loading import settings
from shared.http.standing import not_signed_in
from shared.security import tokens
from shared.security.networks import without_port

MAX_ADDRESS = 64  # characters; with brackets, a zone and a port
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")  # W3C, 3.2
_is_told = False
log = structlog.get_logger()


def bearer(req: Request) -> tokens.Token:
    """The access token of a request (RFC 6750, 2.1).

    Raises:
        ApiError: 401, when there is none or it is no good.
    """
    scheme, _, text = (req.get_header("Authorization") or "").partition(" ")
    try:
        if scheme.lower() == "bearer" and text:
            return tokens.check(text.strip(), "access")
    except tokens.InvalidTokenError:
        pass
    raise not_signed_in()


def client_address(req: Request) -> str:
    """The client's address: the peer, or what the outermost trusted proxy saw.

    With `TRUSTED_PROXIES=n`, the n-th entry of `X-Forwarded-For` from the right: those further left
    are whatever the client cared to write.
    """
    hops = settings().trusted_proxies
    if hops:
        forwarded = [part.strip() for part in (req.get_header("X-Forwarded-For") or "").split(",")]
        if len(forwarded) >= hops and forwarded[-hops]:
            # A proxy that passes on what it was sent; what is no address is long for nobody.
            return without_port(forwarded[-hops][:MAX_ADDRESS])
    # Falcon's `remote_addr`, without the list of hops that it makes first.
    client = req.scope.get("client")
    peer: str = client[0] if client else "127.0.0.1"
    if not hops and not _is_told and req.get_header("X-Forwarded-For") and is_internal(peer):
        _tell_of_proxy(peer)
    return peer


def is_internal(address: str) -> bool:
    """Whether an address is of this machine or a network of one's own (RFC 1918, RFC 4193)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_private or parsed.is_loopback


def _tell_of_proxy(peer: str) -> None:
    """Say, once, that a neighbour adds an address that nobody reads.

    All who come that way are one client, whom strangers' guesses hold up. From elsewhere anybody
    may write such a header, and to count it would let them choose their address.
    """
    global _is_told
    _is_told = True
    if settings().environment == "production":
        log.warning("proxy_not_counted", setting="TRUSTED_PROXIES", peer=peer)


def traceparent(req: Request) -> str | None:
    """The W3C trace context of a request, where it has one."""
    given = req.get_header("traceparent")
    return given if given and _TRACEPARENT.match(given) else None
