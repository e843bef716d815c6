"""Signatures of Standard Webhooks (standardwebhooks.com, specification 1.0.0), as pure functions.

`webhook-signature` is a list, separated by spaces, of `v1,` and the base64 of the HMAC-SHA256 of
`<webhook-id>.<webhook-timestamp>.<raw body>`, or `v1a,` and that of its Ed25519 signature (RFC
8032). Entries of other versions are ignored.
"""

import base64
import hmac
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

VERSION, PUBLIC_VERSION = b"v1,", b"v1a,"
TOLERANCE_SECONDS = 300  # the specification's, both ways
MAX_SIGNATURES = 16  # of a header; further ones are ignored
# Of `v1a`: one costs as much as forty HMACs, and a sender needs two while it changes its key.
MAX_PUBLIC_SIGNATURES = 2
SIGNATURE_BYTES = 64  # of Ed25519

# Visible ASCII without the dot, which separates the signed parts: with a dot in the id, other parts
# could have the same signature.
_ID = re.compile(rb"[\x21-\x2d\x2f-\x7e]{1,255}\Z")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}\Z")


def is_id(value: bytes) -> bool:
    """Return whether a `webhook-id` is valid: 1 to 255 visible ASCII characters, no dot."""
    return _ID.match(value) is not None


def is_current(timestamp: bytes, now: float) -> bool:
    """Return whether a `webhook-timestamp` is within `TOLERANCE_SECONDS` of `now`, either way.

    Args:
        timestamp: the raw header; anything but decimal digits is not current.
        now: seconds since 1970.
    """
    if _TIMESTAMP.match(timestamp) is None:
        return False
    return abs(now - int(timestamp)) <= TOLERANCE_SECONDS


def why_not_current(timestamp: bytes, now: float) -> str:
    """Return a sentence on why a `webhook-timestamp` is not current.

    Args:
        timestamp: the header; `is_current` refuses it.
        now: seconds since 1970.
    """
    if re.fullmatch(rb"[0-9]{1,15}", timestamp) is None:
        return "webhook-timestamp must be whole seconds since 1970, in digits."
    off = int(timestamp) - now
    if abs(off) <= TOLERANCE_SECONDS:
        return "webhook-timestamp may have 12 digits at most."
    if abs(int(timestamp) / 1000 - now) <= TOLERANCE_SECONDS:
        return "webhook-timestamp is in milliseconds. It must be in seconds."
    return (
        f"webhook-timestamp is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} our clock; "
        f"{TOLERANCE_SECONDS} s are tolerated. Set your clock, and make a new timestamp and "
        "signature for each try."
    )


def listed(header: bytes) -> list[bytes]:
    """Return the `v1` signatures, in base64, unmodified."""
    given = header.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES]
    return [part[len(VERSION) :] for part in given if part.startswith(VERSION)]


def listed_public(header: bytes) -> list[bytes]:
    """Return the first `MAX_PUBLIC_SIGNATURES` well-formed `v1a` signatures, as bytes.

    Only standard padded base64 is accepted, so that a signature has one form.
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
    """Return whether one of `given` verifies under `key`. All are tried: the time is the same.

    Args:
        key: a public key that `shared.security.public_keys` has checked.
        signed: id, timestamp and body, joined by dots.
        given: the signatures that `listed_public` returned.
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
    """Return the signature in base64, without its version.

    Args:
        key: the raw bytes of the secret.
        signed: id, timestamp and body, joined by dots.
    """
    return base64.b64encode(hmac.digest(key, signed, "sha256"))


def matches(key: bytes, signed: bytes, given: Sequence[bytes]) -> bool:
    """Return whether one of `given` is the signature, compared in constant time.

    Args:
        key: the raw bytes of the secret.
        signed: id, timestamp and body, joined by dots.
        given: what `listed` returned; compared as text, so that a signature has one form.
    """
    right = sign(key, signed)
    return any(hmac.compare_digest(right, signature) for signature in given)
