"""The form of a webhook secret: 32 random bytes, shown as `whsk_` and their urlsafe base64.

The key of the `X-API-Key` scheme is that whole string. At rest there are its SHA-256, to find it
by, and the bytes, sealed for their row.
"""

import base64
import hashlib
import secrets
from uuid import UUID

from shared.crypto import sealer

PREFIX = "whsk_"
SECRET_BYTES = 32


def generate() -> bytes:
    """32 new random bytes."""
    return secrets.token_bytes(SECRET_BYTES)


def encode_key(raw: bytes) -> str:
    """The string that a sender signs with and sends as `X-API-Key`."""
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def key_hash(key: bytes) -> bytes:
    """The SHA-256 of a key. It has 256 random bits, so it needs neither salt nor stretching."""
    return hashlib.sha256(key).digest()


def seal(raw: bytes, secret_id: UUID) -> bytes:
    """The bytes of a secret, sealed for its row."""
    return sealer().seal(raw, f"secret:{secret_id}")


def unseal(sealed: bytes, secret_id: UUID) -> bytes:
    """The bytes of a sealed secret.

    Raises:
        shared.crypto.CannotOpenError: it is another row's, damaged, or under a key not listed.
    """
    return sealer().open(sealed, f"secret:{secret_id}")
