"""Authenticated encryption of stored values: AES-256-GCM with a list of keys, for key rotation.

It seals webhook secrets, one-time codes in messages, second factors of ops staff and the portal's
sessions, each with separate keys. A sealed value contains the id of its key, and is bound to a
context (such as the row's id), so that it is not valid elsewhere.
"""

import hmac
import os
from collections.abc import Sequence
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.config.keys import KEY_ID_BYTES, decode_key, key_id
from shared.config.loading import settings

_NONCE_BYTES = 12  # NIST SP 800-38D, 5.2.1.1: 96 bits is the recommended length


class CannotOpenError(Exception):
    """A sealed value is damaged, of another context, or sealed with an unknown key."""


class Sealer:
    """Seals with the first of its keys and opens with any of them."""

    def __init__(self, keys: Sequence[str], setting: str = "SECRET_ENCRYPTION_KEYS") -> None:
        """Decode the keys.

        Args:
            keys: 32 random bytes each, in base64 (either alphabet); the first seals.
            setting: that contains them, for error messages.

        Raises:
            ConfigurationError: a key is not base64 or not 32 bytes long.
        """
        raw = [decode_key(key, setting) for key in keys]
        self._setting = setting
        self._ciphers = {key_id(key): AESGCM(key) for key in raw}
        self._current = key_id(raw[0])
        self._naming = hmac.digest(raw[0], b"order-fellow names", "sha256")

    def seal(self, plain: bytes, context: str) -> bytes:
        """Seal `plain`; `open` needs the same context."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._current]
        return self._current + nonce + cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the plain bytes of a sealed value.

        Raises:
            CannotOpenError: it is damaged, of another context, or sealed with an unknown key.
        """
        by, rest = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES:]
        cipher = self._ciphers.get(by)
        if cipher is None:
            raise CannotOpenError(f"sealed under a key that {self._setting} does not list")
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise CannotOpenError("damaged, or sealed for another context") from None

    def pseudonym(self, plain: bytes) -> bytes:
        """Return a keyed hash of `plain`: the HMAC-SHA256 under the first key, 32 bytes."""
        return hmac.digest(self._naming, plain, "sha256")

    @property
    def current_key_id(self) -> bytes:
        """The prefix of values sealed with the current key."""
        return self._current


@cache
def sealer() -> Sealer:
    """Return the sealer for `SECRET_ENCRYPTION_KEYS`."""
    return Sealer(settings().listed("SECRET_ENCRYPTION_KEYS"))


@cache
def code_sealer() -> Sealer:
    """Return the sealer for `ONE_TIME_CODE_KEYS`."""
    return Sealer(settings().listed("ONE_TIME_CODE_KEYS"), "ONE_TIME_CODE_KEYS")


@cache
def second_factor_sealer() -> Sealer:
    """Return the sealer for `SECOND_FACTOR_KEYS`."""
    return Sealer(settings().listed("SECOND_FACTOR_KEYS"), "SECOND_FACTOR_KEYS")


@cache
def portal_sealer() -> Sealer:
    """Return the sealer for `PORTAL_KEYS`."""
    return Sealer(settings().listed("PORTAL_KEYS"), "PORTAL_KEYS")
