"""Webhook secrets: 32 random bytes, or 35 for a test secret, and their two text forms.

`whsk_` and their URL-safe base64: the HMAC key of the `X-API-Key` scheme is that whole string.
`whsec_` and their standard base64: the HMAC key of Standard Webhooks is the bytes. Its libraries
must not be given the first form, because there `whsk_` means an Ed25519 key. The database has the
SHA-256 of the first form, for look-ups, and the bytes, sealed for their row.

A test secret is recognisable in both forms, `whtk_TEST…` and `whsec_TEST…`, because its bytes begin
with those whose base64 is `TEST`. So libraries accept it as any other secret.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from uuid import UUID

from shared.security.encryption import sealer
from shared.validation import base64url

PREFIX = "whsk_"
STANDARD_PREFIX = "whsec_"
TEST_PREFIX = "whtk_"
PREFIXES = (PREFIX, TEST_PREFIX, STANDARD_PREFIX)
SECRET_BYTES = 32
GIVEN_BY = {"shopify": "Shopify"}
"""Titles, by `WebhookSecret.platform`, of platforms that generate the secret they sign with, which
the business enters here. It is sealed like one of ours, but found by its account; its `key_hash` is
random."""
TEST_MARK = base64.b64decode("TEST")
# Either form, whole or truncated, in any case and in quotes.
_IN_TEXT = re.compile(r"(wh(?:sk|tk|sec)_)[\w+/=-]+", re.ASCII | re.IGNORECASE)


def generate(*, is_test: bool = False) -> bytes:
    """Return 32 new random bytes, after the mark of a test secret if it is one."""
    return (TEST_MARK if is_test else b"") + secrets.token_bytes(SECRET_BYTES)


def is_test(raw: bytes) -> bool:
    """Return whether the bytes are a test secret's; a live one may begin alike, but is shorter."""
    return len(raw) > SECRET_BYTES and raw.startswith(TEST_MARK)


def encode_key(raw: bytes) -> str:
    """Return the form that a sender uses as HMAC key and sends as `X-API-Key`."""
    prefix = TEST_PREFIX if is_test(raw) else PREFIX
    return prefix + base64url.encode(raw)


def encode_standard(raw: bytes) -> str:
    """Return the form for Standard Webhooks libraries."""
    return STANDARD_PREFIX + base64.b64encode(raw).decode()


def describe_other_keys(
    platform_secrets: Mapping[str, int], *, public_keys: int, test: int = 0
) -> str:
    """List the credentials that stay valid when a business's own secret is replaced.

    Args:
        platform_secrets: number of platforms' secrets, by platform.
        public_keys: number of public keys.
        test: number of test secrets.

    Returns:
        Such as `1 Shopify secret, 2 public keys`; empty if there are none.
    """
    counted = [
        *(
            (count, f"{GIVEN_BY.get(platform, platform)} secret")
            for platform, count in platform_secrets.items()
        ),
        (public_keys, "public key"),
        (test, "test secret"),
    ]
    return ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}" for count, name in counted if count
    )


def redacted(text: str) -> str:
    """Return a text with webhook secrets in it replaced."""
    return _IN_TEXT.sub(r"\1(removed)", text)


def key_hash(key: bytes) -> bytes:
    """Return the SHA-256 of a key. With 256 random bits it needs neither salt nor stretching."""
    return hashlib.sha256(key).digest()


def random_hash() -> bytes:
    """Return a random `key_hash` for a platform's secret, which no header names."""
    return secrets.token_bytes(SECRET_BYTES)


def seal(raw: bytes, secret_id: UUID) -> bytes:
    """Seal a secret for its row."""
    return sealer().seal(raw, f"secret:{secret_id}")


def unseal(sealed: bytes, secret_id: UUID) -> bytes:
    """Return the bytes of a sealed secret.

    Raises:
        shared.security.encryption.CannotOpenError: it is damaged, of another row, or sealed with an
            unknown key.
    """
    return sealer().open(sealed, f"secret:{secret_id}")
