"""The two forms of a webhook secret, which is 32 random bytes; of a test secret, 35.

`whsk_` and their urlsafe base64: the key of the `X-API-Key` scheme is that whole string. `whsec_`
and their standard base64: the key of Standard Webhooks is the bytes behind it. Its libraries must
never be handed the first form: there `whsk_` means an ed25519 key. At rest there are the SHA-256 of
the first form, to find it by, and the bytes, sealed for their row.

A test secret shows what it is in both forms, `whtk_TEST…` and `whsec_TEST…`: its bytes begin with
those whose base64 is `TEST`. So the libraries take it as any other secret.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from uuid import UUID

from shared.security.encryption import sealer

PREFIX = "whsk_"
STANDARD_PREFIX = "whsec_"
TEST_PREFIX = "whtk_"
PREFIXES = (PREFIX, TEST_PREFIX, STANDARD_PREFIX)
SECRET_BYTES = 32
GIVEN_BY = {"shopify": "Shopify"}
"""Platforms that make the secret they sign with, which their business gives to us: their titles by
the name that such a secret's row has. At rest it is sealed like one of ours, and found by its
account: what finds ours is random there, so that nothing names it."""
TEST_MARK = base64.b64decode("TEST")
# Of either form, whole or cut; a header takes them in any case, and somebody puts them in quotes.
_IN_TEXT = re.compile(r"(wh(?:sk|tk|sec)_)[\w+/=-]+", re.ASCII | re.IGNORECASE)


def generate(*, is_test: bool = False) -> bytes:
    """32 new random bytes, behind the mark of a test secret where it is to be one."""
    return (TEST_MARK if is_test else b"") + secrets.token_bytes(SECRET_BYTES)


def is_test(raw: bytes) -> bool:
    """Whether the bytes are a test secret's; a live one's may begin alike, and are fewer."""
    return len(raw) > SECRET_BYTES and raw.startswith(TEST_MARK)


def encode_key(raw: bytes) -> str:
    """The string that a sender signs with and sends as `X-API-Key`."""
    prefix = TEST_PREFIX if is_test(raw) else PREFIX
    return prefix + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def encode_standard(raw: bytes) -> str:
    """The string that Standard Webhooks libraries take."""
    return STANDARD_PREFIX + base64.b64encode(raw).decode()


def others_in_words(given: Mapping[str, int], *, public_keys: int, test: int = 0) -> str:
    """What works beside a business's own secret, and goes on when that is replaced.

    Args:
        given: how many secrets it has given us, by the platform.
        public_keys: how many sign for it.
        test: how many test secrets.

    Returns:
        Such as `1 Shopify secret, 2 public keys`; empty where there is none.
    """
    counted = [
        *(
            (count, f"{GIVEN_BY.get(platform, platform)} secret")
            for platform, count in given.items()
        ),
        (public_keys, "public key"),
        (test, "test secret"),
    ]
    return ", ".join(
        f"{count} {name}{'' if count == 1 else 's'}" for count, name in counted if count
    )


def removed(text: str) -> str:
    """A text without the webhook secrets that somebody has put where none belongs."""
    return _IN_TEXT.sub(r"\1(removed)", text)


def key_hash(key: bytes) -> bytes:
    """The SHA-256 of a key. It has 256 random bits, so it needs neither salt nor stretching."""
    return hashlib.sha256(key).digest()


def no_hash() -> bytes:
    """What stands in the place of `key_hash` for a secret that no header may name."""
    return secrets.token_bytes(SECRET_BYTES)


def seal(raw: bytes, secret_id: UUID) -> bytes:
    """The bytes of a secret, sealed for its row."""
    return sealer().seal(raw, f"secret:{secret_id}")


def unseal(sealed: bytes, secret_id: UUID) -> bytes:
    """The bytes of a sealed secret.

    Raises:
        shared.security.encryption.CannotOpenError: it is another row's, damaged, or under a key not
            listed.
    """
    return sealer().open(sealed, f"secret:{secret_id}")
