"""Decodes keys: 32 random bytes in base64."""

import base64
import binascii
import hashlib

from shared.config.environment import ConfigurationError

KEY_BYTES = 32
KEY_ID_BYTES = 4


def decode_key(key: str, setting: str) -> bytes:
    """Return the 32 bytes of a key.

    Args:
        key: base64, in the standard or the URL-safe alphabet.
        setting: that contains it, for error messages.

    Raises:
        ConfigurationError: it is not base64 or not 32 bytes long.
    """
    try:
        raw = base64.b64decode(key.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"a key in {setting} is not base64") from None
    if len(raw) != KEY_BYTES:
        raise ConfigurationError(f"a key in {setting} has {len(raw)} bytes; {KEY_BYTES} are needed")
    return raw


def key_id(key: bytes) -> bytes:
    """Return the 4-byte id stored beside data made with a key; it reveals nothing of the key."""
    return hashlib.sha256(b"order-fellow key id\0" + key).digest()[:KEY_ID_BYTES]
