"""Tokens of tracking links, by which a customer sees one order without signing in.

A token contains the order's id, the number of the link, and a MAC of both under `TRACKING_KEYS`, so
it cannot be made for another order. The order stores the number of its valid link, which a business
raises to revoke earlier ones. No link is valid once the order is removed or its customer erased.
"""

import hashlib
import hmac
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from shared.config.keys import decode_key
from shared.config.loading import settings
from shared.validation import base64url

_ID_BYTES = 16
_NUMBER_BYTES = 4
_MAC_BYTES = 16  # 128 bits of HMAC-SHA256 (RFC 2104, 5: no fewer than half)


class InvalidLinkError(Exception):
    """The token was not made by us, or its key is no longer listed."""


@dataclass(frozen=True, slots=True)
class Link:
    """The content of a token: an order, and the number of its link, from 0."""

    order_id: UUID
    number: int


def token_for(order_id: UUID, number: int = 0) -> str:
    """Return the token of an order's link.

    Args:
        order_id: of the order.
        number: of its valid link.
    """
    named = _named(order_id, number)
    return base64url.encode(named + _mac(keys()[0], named))


def link_of(token: str) -> Link:
    """Verify a token; the caller must compare the number with the order's valid one.

    Raises:
        InvalidLinkError: the token was not made by us, or its key is no longer listed.
    """
    try:
        raw = base64url.decode(token)
        named, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        link = Link(UUID(bytes=named[:_ID_BYTES]), int.from_bytes(named[_ID_BYTES:]))
    except ValueError:
        raise InvalidLinkError from None
    is_ours = any(hmac.compare_digest(mac, _mac(key, named)) for key in keys())
    # Each link has one token, so that rate limits by link cannot be evaded.
    if not is_ours or named != _named(link.order_id, link.number):
        raise InvalidLinkError
    return link


def page(order_id: UUID, number: int) -> str:
    """Return the URL of an order's page, or an empty text without `TRACKING_URL`."""
    url = settings().tracking_url.rstrip("/")
    return f"{url}/{token_for(order_id, number)}" if url else ""


@cache
def keys() -> tuple[bytes, ...]:
    """Return the keys of `TRACKING_KEYS`; the first signs.

    Raises:
        ConfigurationError: one is not 32 bytes in base64.
    """
    return tuple(decode_key(key, "TRACKING_KEYS") for key in settings().listed("TRACKING_KEYS"))


def _named(order_id: UUID, number: int) -> bytes:
    # Link 0 has no number, for compatibility with tokens from before links had one.
    return order_id.bytes + (number.to_bytes(_NUMBER_BYTES) if number else b"")


def _mac(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, b"tracking\0" + named, hashlib.sha256)[:_MAC_BYTES]
