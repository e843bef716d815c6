"""Signatures by Standard Webhooks (standardwebhooks.com, specification 1.0.0), as pure functions.

`webhook-signature` is a list, separated by spaces, of `v1,` and the base64 of the HMAC-SHA256 of
`<webhook-id>.<webhook-timestamp>.<raw body>`, or `v1a,` and that of its Ed25519 signature (RFC
8032). A version that is not known here proves nothing.
"""

import base64
import hmac
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERSION, PUBLIC_VERSION = b"v1,", b"v1a,"
TOLERANCE_SECONDS = 300  # the specification's, both ways
MAX_SIGNATURES = 16  # of a header; those behind are not looked at
# Of `v1a`: one costs as much as forty HMACs, and a sender has two while it changes its key.
MAX_PUBLIC_SIGNATURES = 2
SIGNATURE_BYTES = 64  # of Ed25519

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


def listed_public(header: bytes) -> list[bytes]:
    """The first `MAX_PUBLIC_SIGNATURES` of `v1a` that can be some, as bytes.

    In standard base64, padded, so that each has but one form.
    """
    if PUBLIC_VERSION not in header:
        return []
    found = []
    for part in header.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES]:
        written = part.removeprefix(PUBLIC_VERSION)
        if written == part or len(written) != 88:
            continue
        try:
            raw = base64.b64decode(written, validate=True)
        except ValueError:
            continue
        if len(raw) == SIGNATURE_BYTES and base64.b64encode(raw) == written:
            found.append(raw)
    return found[:MAX_PUBLIC_SIGNATURES]


def verifies(key: Ed25519PublicKey, signed: bytes, given: Sequence[bytes]) -> bool:
    """Whether one of `given` is a signature of `key`'s owner; all of them are tried.

    Args:
        key: of a point that `shared.security.public_keys` has let pass.
        signed: id, timestamp and body, joined by dots.
        given: what `listed_public` found.
    """
    is_right = False
    for signature in given:
        try:
            key.verify(signature, signed)
            is_right = True
        except InvalidSignature:
            continue
    return is_right


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
