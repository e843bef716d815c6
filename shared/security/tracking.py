"""Links by which a customer sees one order without signing in.

The token is the order's id, which of the order's links it is, and a MAC of both under
`TRACKING_KEYS`: nobody can make one for another order. Of an order one number is kept, that of its
link of today, which a business raises to end those before. All are worth nothing once the order is
removed or its customer erased.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from shared.config.keys import decode_key
from shared.config.loading import settings

_ID_BYTES = 16
_NUMBER_BYTES = 4
_MAC_BYTES = 16  # 128 bits of HMAC-SHA256 (RFC 2104, 5: no fewer than half)


class InvalidLinkError(Exception):
    """The token is none of ours, or made under a key that is not listed any more."""


@dataclass(frozen=True, slots=True)
class Link:
    """What a token stands for: an order, and which of its links; 0 is the first."""

    order_id: UUID
    number: int


def token_for(order_id: UUID, number: int = 0) -> str:
    """The token of an order's link.

    Args:
        order_id: the order.
        number: of its link of today.
    """
    named = _named(order_id, number)
    return base64.urlsafe_b64encode(named + _mac(keys()[0], named)).decode().rstrip("=")


def link_of(token: str) -> Link:
    """What a token was made for; whether that is still the order's link is the order's to say.

    Raises:
        InvalidLinkError: see there.
    """
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        named, given = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        link = Link(UUID(bytes=named[:_ID_BYTES]), int.from_bytes(named[_ID_BYTES:]))
    except (binascii.Error, ValueError):
        raise InvalidLinkError from None
    is_ours = any(hmac.compare_digest(given, _mac(key, named)) for key in keys())
    # A link has one form, so that one link is one link.
    canonical = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    if not is_ours or token != canonical or named != _named(link.order_id, link.number):
        raise InvalidLinkError
    return link


def page(order_id: UUID, number: int) -> str:
    """Where the customer sees an order; empty where there is no such page. Args as `token_for`."""
    url = settings().tracking_url.rstrip("/")
    return f"{url}/{token_for(order_id, number)}" if url else ""


@cache
def keys() -> tuple[bytes, ...]:
    """The keys of `TRACKING_KEYS`; the first signs.

    Raises:
        ConfigurationError: one is not 32 bytes in base64.
    """
    return tuple(decode_key(key, "TRACKING_KEYS") for key in settings().listed("TRACKING_KEYS"))


def _named(order_id: UUID, number: int) -> bytes:
    # The first link of an order is what it was before there were others.
    return order_id.bytes + (number.to_bytes(_NUMBER_BYTES) if number else b"")


def _mac(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, b"tracking\0" + named, hashlib.sha256)[:_MAC_BYTES]
