"""Signatures by Standard Webhooks (standardwebhooks.com, specification 1.0.0), as pure functions.

`webhook-signature` is a list, separated by spaces, of `v1,` and the base64 of the HMAC-SHA256 of
`<webhook-id>.<webhook-timestamp>.<raw body>`. A version that is not known here proves nothing.
"""

import base64
import hmac
import re
from collections.abc import Sequence

VERSION = b"v1,"
TOLERANCE_SECONDS = 300  # the specification's, both ways
MAX_SIGNATURES = 16  # of a header; those behind are not looked at

# Visible ASCII without the dot, which separates the parts that are signed: with one in the id,
# other parts could have the same signature.
_ID = re.compile(rb"[\x21-\x2d\x2f-\x7e]{1,255}\Z")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}\Z")


def is_id(value: bytes) -> bool:
    """Whether it may stand in `webhook-id`: visible ASCII without a dot, at most 255 of it."""
    return _ID.match(value) is not None


def is_current(timestamp: bytes, now: float) -> bool:
    """Whether a `webhook-timestamp` lies within `TOLERANCE_SECONDS` of `now`, either way.

    Args:
        timestamp: the header as it came; anything but decimal digits is not current.
        now: seconds since 1970.
    """
    if _TIMESTAMP.match(timestamp) is None:
        return False
    return abs(now - int(timestamp)) <= TOLERANCE_SECONDS


def listed(header: bytes) -> list[bytes]:
    """The signatures of the version that is known here, in base64 as they came."""
    given = header.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES]
    return [part[len(VERSION) :] for part in given if part.startswith(VERSION)]


def sign(key: bytes, signed: bytes) -> bytes:
    """A signature in base64, without its version.

    Args:
        key: the raw bytes of the secret.
        signed: id, timestamp and body, joined by dots.
    """
    return base64.b64encode(hmac.digest(key, signed, "sha256"))


def matches(key: bytes, signed: bytes, given: Sequence[bytes]) -> bool:
    """Whether one of `given` is the signature, compared in constant time.

    Args:
        key: the raw bytes of the secret.
        signed: id, timestamp and body, joined by dots.
        given: what `listed` found. They are compared as text, so that each has but one form.
    """
    right = sign(key, signed)
    return any(hmac.compare_digest(right, signature) for signature in given)
