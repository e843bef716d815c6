"""Sealing at rest: AES-256-GCM under a list of keys, so that the key itself can rotate.

Webhook secrets, one-time codes that must travel, second factors of ops staff and what the portal
holds of a session are sealed here, under keys of their own each. A sealed value carries
the id of its key, and is bound to a context (such as the row's id), so that it cannot be moved
elsewhere.
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
    """A sealed value is damaged, for another context, or under a key that is not listed."""


class Sealer:
    """Seals under the first of its keys and opens under any of them."""

    def __init__(self, keys: Sequence[str], setting: str = "SECRET_ENCRYPTION_KEYS") -> None:
        """Take the keys.

        Args:
            keys: 32 random bytes each, in base64 (either alphabet), the one that seals first.
            setting: where they stand, for the sentence of an error.

        Raises:
            ConfigurationError: a key is not base64 or not 32 bytes long.
        """
        raw = [decode_key(key, setting) for key in keys]
        self._setting = setting
        self._ciphers = {key_id(key): AESGCM(key) for key in raw}
        self._current = key_id(raw[0])
        self._naming = hmac.digest(raw[0], b"order-fellow names", "sha256")

    def seal(self, plain: bytes, context: str) -> bytes:
        """Seal `plain`; only `open` with the same context gives it back."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._current]
        return self._current + nonce + cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """The bytes that were sealed.

        Raises:
            CannotOpenError: see there.
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
        """The same for the same, and of no use to find out what: 32 bytes by HMAC-SHA256.

        It changes when another key seals.
        """
        return hmac.digest(self._naming, plain, "sha256")

    @property
    def current_key_id(self) -> bytes:
        """What every value begins with that was sealed under the key that seals now."""
        return self._current


@cache
def sealer() -> Sealer:
    """The sealer over this process's `SECRET_ENCRYPTION_KEYS`."""
    return Sealer(settings().listed("SECRET_ENCRYPTION_KEYS"))


@cache
def code_sealer() -> Sealer:
    """The sealer over this process's `ONE_TIME_CODE_KEYS`."""
    return Sealer(settings().listed("ONE_TIME_CODE_KEYS"), "ONE_TIME_CODE_KEYS")


@cache
def second_factor_sealer() -> Sealer:
    """The sealer over this process's `SECOND_FACTOR_KEYS`."""
    return Sealer(settings().listed("SECOND_FACTOR_KEYS"), "SECOND_FACTOR_KEYS")


@cache
def portal_sealer() -> Sealer:
    """The sealer over this process's `PORTAL_KEYS`."""
    return Sealer(settings().listed("PORTAL_KEYS"), "PORTAL_KEYS")
