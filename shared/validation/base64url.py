"""Unpadded base64url (RFC 4648, 5), with exactly one text for each value."""

import base64


def encode(raw: bytes) -> str:
    """Return the text of bytes."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str) -> bytes:
    """Return the bytes of a text.

    Raises:
        ValueError: it is not the text that `encode` returns.
    """
    raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    if encode(raw) != text:
        raise ValueError("The base64 is not canonical.")
    return raw
