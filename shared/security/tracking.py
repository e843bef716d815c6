"""Links by which a customer sees one order without signing in.

The token is the order's id and a MAC of it under `TRACKING_KEYS`: nobody can make one for another
order, nothing is kept, and it is worth nothing once the order is removed or its customer erased.
"""

import base64
import binascii
import hashlib
import hmac
from functools import cache
from uuid import UUID

from shared.config.keys import decode_key
from shared.config.loading import settings

_ID_BYTES = 16
_MAC_BYTES = 16  # 128 bits of HMAC-SHA256 (RFC 2104, 5: no fewer than half)


class InvalidLinkError(Exception):
    """The token is none of ours, or made under a key that is not listed any more."""


def token_for(order_id: UUID) -> str:
    """The token of an order's link."""
    raw = order_id.bytes + _mac(keys()[0], order_id)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def order_of(token: str) -> UUID:
    """The order that a token was made for.

    Raises:
        InvalidLinkError: see there.
    """
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        order_id = UUID(bytes=raw[:_ID_BYTES])
    except (binascii.Error, ValueError):
        raise InvalidLinkError from None
    given = raw[_ID_BYTES:]
    # The text has one form, so that one link is one link.
    is_ours = any(hmac.compare_digest(given, _mac(key, order_id)) for key in keys())
    canonical = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    if not is_ours or token != canonical:
        raise InvalidLinkError
    return order_id


@cache
def keys() -> tuple[bytes, ...]:
    """The keys of `TRACKING_KEYS`; the first signs.

    Raises:
        ConfigurationError: one is not 32 bytes in base64.
    """
    return tuple(decode_key(key, "TRACKING_KEYS") for key in settings().listed("TRACKING_KEYS"))


def _mac(key: bytes, order_id: UUID) -> bytes:
    return hmac.digest(key, b"tracking\0" + order_id.bytes, hashlib.sha256)[:_MAC_BYTES]
