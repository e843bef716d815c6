"""Ed25519 public keys (RFC 8032) of businesses that sign by Standard Webhooks' `v1a`.

The text form is `whpk_` and the standard base64 of the 32 bytes (specification 1.0.0, "Signature
scheme"). `cryptography` (OpenSSL) accepts any 32 bytes as a key, without the checks made here:
for a key of small order anyone can forge signatures, and a non-canonical encoding would make two
keys of one point. Neither is accepted.
"""

import base64
import re

from shared.security.webhook_keys import PREFIXES

PREFIX = "whpk_"
KEY_BYTES = 32
_TEXT = re.compile(r"[A-Za-z0-9+/]{43}=")
_HEX = re.compile(r"(?:0x)?[0-9a-fA-F]{64}")

# RFC 8032, 5.1: the field and the curve's constant.
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
# The y of points of order 8; those with -y or the other sign have the same order.
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


class PublicKeyError(ValueError):
    """A text is not a usable public key; the message does not quote it."""


def parse(text: str) -> bytes:
    """Return the 32 bytes of a public key.

    Raises:
        PublicKeyError: it is malformed, or of small order.
    """
    if text.startswith(PREFIXES) or "PRIVATE KEY" in text:
        raise PublicKeyError(
            "This is a private key or a secret. It was not stored: treat it as compromised, and "
            "make another. Send the public key, `whpk_…`."
        )
    if not text.startswith(PREFIX):
        raise PublicKeyError(_without_prefix(text))
    written = text.removeprefix(PREFIX)
    if _TEXT.fullmatch(written) is None:
        raise PublicKeyError(
            "Behind `whpk_` must stand the 32 bytes of an Ed25519 public key in standard base64: "
            "43 characters and `=`."
        )
    raw = base64.b64decode(written)
    if encode(raw) != text:
        raise PublicKeyError("The base64 has bits behind its end that are not zero.")
    if fault := _fault(raw):
        raise PublicKeyError(fault)
    return raw


def encode(raw: bytes) -> str:
    """Return the text form of a public key."""
    return PREFIX + base64.b64encode(raw).decode()


def _without_prefix(text: str) -> str:
    if "PUBLIC KEY" in text:
        found = "This is PEM. "
    elif text.startswith("ssh-"):
        found = "This is a key of OpenSSH. "
    elif _HEX.fullmatch(text):
        found = "This is hexadecimal. "
    else:
        found = ""
    return f"{found}A public key is written `whpk_` and the base64 of its 32 bytes."


def _fault(raw: bytes) -> str:
    """Return why a key must not be used; empty if it may."""
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _P:  # RFC 8032, 5.1.3, step 1
        return "The key is not in its canonical form."
    if y in _SMALL_ORDER:
        return "The key is of small order: anybody could sign under it."
    # Step 3: x² = (y² - 1) / (dy² + 1) has a root, by Euler's criterion.
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if pow(square, (_P - 1) // 2, _P) != 1:
        return "The key is not a point on the curve Ed25519."
    return ""
