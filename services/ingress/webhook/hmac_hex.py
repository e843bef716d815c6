"""The signature of a webhook: hexadecimal HMAC-SHA256 (RFC 2104) of the raw body."""

import hmac


def sign(key: bytes, body: bytes) -> bytes:
    """Return the signature in lower-case hexadecimal digits.

    Args:
        key: the whole `whsk_` string, as bytes.
        body: the raw body, byte for byte.
    """
    return hmac.digest(key, body, "sha256").hex().encode()


def matches(key: bytes, body: bytes, signature: bytes) -> bool:
    """Return whether `signature` is that of `body`, compared in constant time.

    Args:
        key: the whole `whsk_` string, as bytes.
        body: the raw body.
        signature: the raw header: any bytes; upper-case digits are accepted.
    """
    return hmac.compare_digest(sign(key, body), signature.lower())
