"""The form of a key: 32 random bytes in base64."""

import base64
import binascii
import hashlib

from shared.config.environment import ConfigurationError

KEY_BYTES = 32
KEY_ID_BYTES = 4


def decode_key(key: str, setting: str) -> bytes:
    """The 32 bytes of a key.

    Args:
        key: them in base64, in either alphabet.
        setting: where it stands, for the sentence of an error.

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
    """By what a key is named beside what it made; nothing of the key can be told from it."""
    return hashlib.sha256(b"order-fellow key id\0" + key).digest()[:KEY_ID_BYTES]
