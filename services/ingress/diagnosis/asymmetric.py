"""Explains why a `v1a` signature is right or wrong."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.ingress.diagnosis import mistakes
from services.ingress.webhook.signature_text import from_base64
from services.ingress.webhook.standard_webhooks import (
    PUBLIC_VERSION,
    SIGNATURE_BYTES,
    listed_public,
    verifies,
)


class Key(Protocol):
    """A public key of the account."""

    @property
    def raw(self) -> bytes: ...  # noqa: D102


KeyT = TypeVar("KeyT", bound=Key)


@dataclass(frozen=True, slots=True)
class Signed:
    """The parts that Standard Webhooks sign: two headers and the body."""

    id: str
    stamp: str
    body: bytes

    @property
    def content(self) -> bytes:
        """The signed bytes."""
        return f"{self.id}.{self.stamp}.".encode() + self.body


def is_one(text: str, signed: Signed, keys: Sequence[Key]) -> bool:
    """Return whether a text without its version is a right signature of one of the keys."""
    given = listed_public(PUBLIC_VERSION + text.encode())
    return bool(given) and _signer(given[0], signed.content, keys) is not None


def explain(text: str, signed: Signed, keys: Sequence[KeyT]) -> tuple[KeyT | None, list[str]]:
    """Return the key that made a signature, and sentences on what is wrong with it.

    Args:
        text: the signature after `v1a,`.
        signed: what should have been signed.
        keys: all of the account's, removed ones too.
    """
    faults: list[str] = []
    signature = _read(text, faults)
    if signature is None:
        return None, faults
    if not keys:
        faults.append(
            "There is a signature of `v1a`, and you have no public key here: add yours by "
            "`POST /webhook/public-keys/`."
        )
        return None, faults
    key = _signer(signature, signed.content, keys)
    if key is not None:
        return key, faults
    for why, other in _other_bytes(signed):
        key = _signer(signature, other, keys)
        if key is not None:
            return key, [*faults, why]
    return None, [
        *faults,
        "The signature of `v1a` fits none of your public keys over these bytes, nor over any usual "
        "change of them. Check whether `GET /webhook/public-keys/` lists the key, and compare the "
        "body's `sha256` below with that of what you signed.",
    ]


def _signer(signature: bytes, signed: bytes, keys: Sequence[KeyT]) -> KeyT | None:
    for key in keys:
        if verifies(Ed25519PublicKey.from_public_bytes(key.raw), signed, [signature]):
            return key
    return None


def _other_bytes(signed: Signed) -> Iterator[tuple[str, bytes]]:
    for why, head in mistakes.of_head(signed.id, signed.stamp):
        yield why, head + signed.body
    head = f"{signed.id}.{signed.stamp}.".encode()
    for why, body in mistakes.of_body(signed.body):
        yield why, head + body


def _read(text: str, faults: list[str]) -> bytes | None:
    """Return the bytes of a signature in any encoding; None if the text holds none."""
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * SIGNATURE_BYTES else from_base64(text)
    except ValueError:
        faults.append("The signature of `v1a` is not base64.")
        return None
    if len(raw) != SIGNATURE_BYTES:
        why = ", as an HMAC has, whose version must be `v1`" if len(raw) == 32 else ""
        faults.append(
            f"The signature of `v1a` has {len(raw)} bytes{why}: Ed25519 gives {SIGNATURE_BYTES}, "
            "in base64 88 characters."
        )
        return None
    if text != base64.b64encode(raw).decode():
        faults.append(
            "The signature of `v1a` must be in standard base64: `+`, `/`, and padded by `=`."
        )
    return raw
