"""Tokens of unsubscribe links, and hashes of the suppressed addresses.

A token contains an account, an order and the hash of an address, with a MAC; it reveals nothing of
the person. The hash is keyed and specific to the account: it cannot be tested against addresses
without the key, and the hashes of one person at two businesses cannot be linked. Both are HMACs
(RFC 2104) under keys derived from one of `UNSUBSCRIBE_KEYS`, so one cannot be used as the other.

The link of an email is for its recipient: it ends and resumes all emails of a business. The
tracking page's link may be passed on, so it only ends the emails of that order, cannot resume them,
and is invalid once the business has revoked the tracking link.
"""

import hashlib
import hmac
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple
from uuid import UUID

from shared.config.keys import KEY_ID_BYTES, decode_key, key_id
from shared.config.loading import settings
from shared.security import tracking
from shared.validation import base64url
from shared.validation.email_addresses import compared

PATH = "/unsubscribe/"
"""Path below the API's prefix. The token is in the query, because paths are logged."""
SETTING = "UNSUBSCRIBE_KEYS"
_HASH_BYTES = _MAC_BYTES = 16  # RFC 2104, 5: half of the output, and no less than 80 bits
_TOKEN_BYTES = KEY_ID_BYTES + 16 + 16 + _HASH_BYTES + _MAC_BYTES
LONGEST = 4 * -(-_TOKEN_BYTES // 3)


class InvalidTokenError(Exception):
    """A token was not made by us, or its key is no longer listed."""


class AddressHash(NamedTuple):
    """The hash of an address for one account, and the id of its key."""

    value: bytes
    key_id: bytes


class Subscriber(NamedTuple):
    """The content of a token: the recipient of the emails about an order of an account."""

    account_id: UUID
    order_id: UUID
    hashed: AddressHash


class UnsubscribeTokens:
    """Makes tokens and hashes with the first of its keys, and recognises those of all keys.

    Args:
        keys: 32 random bytes each, in base64; the first signs.

    Raises:
        ConfigurationError: a key is not base64 or not 32 bytes long.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        listed = [decode_key(key, SETTING) for key in keys]
        self._keys = {key_id(key): (_derive(b"sign", key), _derive(b"hash", key)) for key in listed}
        self._first = key_id(listed[0])

    def make(self, account_id: UUID, order_id: UUID, address: str) -> str:
        """Return the token of the recipient of the emails about an order."""
        hashed = self.hashes(account_id, address)[0]
        content = self._first + account_id.bytes + order_id.bytes + hashed.value
        signed = content + _mac(self._keys[self._first][0], content, _MAC_BYTES)
        return base64url.encode(signed)

    def read(self, token: str) -> Subscriber:
        """Verify a token and return its content.

        Raises:
            InvalidTokenError: the token was not made by us, or its key is no longer listed.
        """
        content, mac = _split(token)
        by = content[:KEY_ID_BYTES]
        known = self._keys.get(by)
        if known is None or not hmac.compare_digest(mac, _mac(known[0], content, _MAC_BYTES)):
            raise InvalidTokenError
        ids = content[KEY_ID_BYTES:]
        return Subscriber(UUID(bytes=ids[:16]), UUID(bytes=ids[16:32]), AddressHash(ids[32:], by))

    def hashes(self, account_id: UUID, address: str) -> list[AddressHash]:
        """Return the hashes of an address with each key; the first is the one to store."""
        text = account_id.bytes + compared(address).encode()
        return [
            AddressHash(_mac(key, text, _HASH_BYTES), by) for by, (_, key) in self._keys.items()
        ]

    @property
    def key_id(self) -> bytes:
        """The id of the current key."""
        return self._first


@cache
def unsubscribe_tokens() -> UnsubscribeTokens:
    """Return the tokens of this process's `UNSUBSCRIBE_KEYS`."""
    return UnsubscribeTokens(settings().listed(SETTING))


def unsubscribe_url(public_url: str, account_id: UUID, order_id: UUID, address: str) -> str:
    """Return the URL of the unsubscribe page for the recipient of the emails about an order.

    Args:
        public_url: of the API.
        account_id: of the business.
        order_id: of the order.
        address: of the customer.
    """
    token = unsubscribe_tokens().make(account_id, order_id, address)
    return f"{public_url.rstrip('/')}/api/v1{PATH}?token={token}"


def order_unsubscribe_url(public_url: str, order_id: UUID, number: int) -> str:
    """Return the URL of the unsubscribe page that an order's tracking page links to.

    Args:
        public_url: of the API.
        order_id: of the order.
        number: of its tracking link.
    """
    token = tracking.token_for(order_id, number)
    return f"{public_url.rstrip('/')}/api/v1{PATH}?link={token}"


def _derive(use: bytes, key: bytes) -> bytes:
    return hashlib.sha256(b"unsubscribe " + use + b"\0" + key).digest()


def _mac(key: bytes, content: bytes, length: int) -> bytes:
    return hmac.digest(key, content, "sha256")[:length]


def _split(token: str) -> tuple[bytes, bytes]:
    try:
        raw = base64url.decode(token)
    except ValueError:
        raise InvalidTokenError from None
    if len(raw) != _TOKEN_BYTES:
        raise InvalidTokenError
    return raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
