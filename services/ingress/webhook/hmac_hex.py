"""The signature of a webhook: hexadecimal HMAC-SHA256 (RFC 2104) of the raw body."""

import hmac


def sign(key: bytes, body: bytes) -> bytes:
    """The signature, in lower-case hexadecimal digits.

    Args:
        key: the whole `whsk_` string, as bytes.
        body: the raw body, exactly as it travels.
    """
    return hmac.digest(key, body, "sha256").hex().encode()


def matches(key: bytes, body: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of `body`, compared in constant time.

    Args:
        key: the whole `whsk_` string, as bytes.
        body: the raw body.
        signature: the header as it came: any bytes; capital digits count as small ones.
    """
    return hmac.compare_digest(sign(key, body), signature.lower())
