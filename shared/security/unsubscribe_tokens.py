"""The links by which customers leave, and the hashes that those are known by who have left.

A token names an account, an order and the hash of an address, under a MAC; nothing of a person can
be read from it. The hash is keyed and made for the account: without the key nobody can try
addresses against it, and one person's at two businesses cannot be told to be one's. Both are HMACs
(RFC 2104) under keys that are derived from one of `UNSUBSCRIBE_KEYS`, so neither is worth anything
as the other.

That of an email is for whoever got it: all of a business's emails, and back. The page's link is
passed on, so what it leads to ends the emails of that order alone, begins none again, and is worth
nothing once the business has ended that link.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple
from uuid import UUID

from shared.config.keys import KEY_ID_BYTES, decode_key, key_id
from shared.config.loading import settings
from shared.security import tracking
from shared.validation.email_addresses import compared

PATH = "/unsubscribe/"
"""Below the API's prefix. The token is in the query, since paths are what logs have."""
SETTING = "UNSUBSCRIBE_KEYS"
_HASH_BYTES = _MAC_BYTES = 16  # RFC 2104, 5: half of the output, and no less than 80 bits
_TOKEN_BYTES = KEY_ID_BYTES + 16 + 16 + _HASH_BYTES + _MAC_BYTES
LONGEST = 4 * -(-_TOKEN_BYTES // 3)


class InvalidTokenError(Exception):
    """A token is not one of ours, or its key is listed no more."""


class AddressHash(NamedTuple):
    """An address as one account's: its hash, and by which key that was made."""

    value: bytes
    key_id: bytes


class Leaver(NamedTuple):
    """Whom a token is for: who got the emails about an order of an account."""

    account_id: UUID
    order_id: UUID
    hashed: AddressHash


class UnsubscribeTokens:
    """Makes tokens and hashes under the first of its keys, and knows those under any of them.

    Args:
        keys: 32 random bytes each, in base64, the one that signs first.

    Raises:
        ConfigurationError: a key is not base64 or not 32 bytes long.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        listed = [decode_key(key, SETTING) for key in keys]
        self._keys = {key_id(key): (_own(b"sign", key), _own(b"hash", key)) for key in listed}
        self._first = key_id(listed[0])

    def make(self, account_id: UUID, order_id: UUID, address: str) -> str:
        """The token of whoever gets the emails about an order."""
        hashed = self.hashes(account_id, address)[0]
        content = self._first + account_id.bytes + order_id.bytes + hashed.value
        signed = content + _mac(self._keys[self._first][0], content, _MAC_BYTES)
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")

    def read(self, token: str) -> Leaver:
        """Whom a token is for.

        Raises:
            InvalidTokenError: see there; it is the same for whatever is wrong.
        """
        content, mac = _split(token)
        by = content[:KEY_ID_BYTES]
        known = self._keys.get(by)
        if known is None or not hmac.compare_digest(mac, _mac(known[0], content, _MAC_BYTES)):
            raise InvalidTokenError
        ids = content[KEY_ID_BYTES:]
        return Leaver(UUID(bytes=ids[:16]), UUID(bytes=ids[16:32]), AddressHash(ids[32:], by))

    def hashes(self, account_id: UUID, address: str) -> list[AddressHash]:
        """The hashes of an address by each key, first the one that is written down."""
        text = account_id.bytes + compared(address).encode()
        return [
            AddressHash(_mac(own, text, _HASH_BYTES), by) for by, (_, own) in self._keys.items()
        ]

    @property
    def key_id(self) -> bytes:
        """The id of the key that signs and hashes now."""
        return self._first


@cache
def unsubscribe_tokens() -> UnsubscribeTokens:
    """Those of this process's `UNSUBSCRIBE_KEYS`."""
    return UnsubscribeTokens(settings().listed(SETTING))


def unsubscribe_url(public_url: str, account_id: UUID, order_id: UUID, address: str) -> str:
    """The address of the page for whoever gets the emails about an order.

    Args:
        public_url: where the API is for the outside.
        account_id: whose order it is.
        order_id: which.
        address: the customer's.
    """
    token = unsubscribe_tokens().make(account_id, order_id, address)
    return f"{public_url.rstrip('/')}/api/v1{PATH}?token={token}"


def order_unsubscribe_url(public_url: str, order_id: UUID, number: int) -> str:
    """The address of the page for whoever has the link to an order.

    Args:
        public_url: where the API is for the outside.
        order_id: which order.
        number: which of its links.
    """
    token = tracking.token_for(order_id, number)
    return f"{public_url.rstrip('/')}/api/v1{PATH}?link={token}"


def _own(use: bytes, key: bytes) -> bytes:
    return hashlib.sha256(b"unsubscribe " + use + b"\0" + key).digest()


def _mac(key: bytes, content: bytes, length: int) -> bytes:
    return hmac.digest(key, content, "sha256")[:length]


def _split(token: str) -> tuple[bytes, bytes]:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidTokenError from None
    if len(raw) != _TOKEN_BYTES:
        raise InvalidTokenError
    return raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
