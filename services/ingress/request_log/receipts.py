"""Receipts: signed proofs that a request was accepted, verifiable with a public key.

A compact JSON Web Signature (RFC 7515) with Ed25519 (RFC 8037) over the accepted body's hash and
the time. A sender asks for it with `Prefer: receipt` (RFC 7240), or later by the event's id. Both
return the same text: it contains only data of the request log, and an Ed25519 signature is
deterministic.
"""

import base64
import hashlib
import json
from functools import cache
from typing import Literal
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from falcon.asgi import Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ingress.request_log.attempt import Attempt
from shared.bus.contract.events import EVENT_TYPES
from shared.config.keys import decode_key
from shared.config.loading import settings
from shared.db.models import WebhookRequest
from shared.http.errors import ApiError
from shared.http.route import Answer, Call, Route
from shared.security.tokens import ISSUER

ALGORITHM = "EdDSA"
TYPE = "order-receipt+jwt"  # RFC 8725, 3.11: tells it from our other JWTs
PREFERENCE = "receipt"


class Jwk(msgspec.Struct, frozen=True, kw_only=True):
    """A public key (RFC 8037, 2)."""

    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    alg: Literal["EdDSA"] = "EdDSA"
    use: Literal["sig"] = "sig"
    kid: str
    x: str


class JwkSet(msgspec.Struct, frozen=True, kw_only=True):
    """The keys that receipts are signed with, the current one first (RFC 7517, 5)."""

    keys: tuple[Jwk, ...]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A signed receipt, as a compact JWS."""

    receipt: str


@cache
def signing_keys() -> tuple[tuple[Jwk, Ed25519PrivateKey], ...]:
    """Return the keys of `RECEIPT_SIGNING_KEYS`; the first signs.

    Raises:
        ConfigurationError: one is not 32 bytes in base64.
    """
    private = [
        Ed25519PrivateKey.from_private_bytes(decode_key(key, "RECEIPT_SIGNING_KEYS"))
        for key in settings().listed("RECEIPT_SIGNING_KEYS")
    ]
    return tuple((_public(key), key) for key in private)


def is_asked_for(req: Request) -> bool:
    """Return whether a request asks for a receipt by `Prefer` (RFC 7240, 2)."""
    given = req.get_header("Prefer")
    if given is None:
        return False
    return any(part.partition(";")[0].strip().lower() == PREFERENCE for part in given.split(","))


def attach(resp: Response, attempt: Attempt) -> None:
    """Add the receipt and `Preference-Applied` (RFC 7240, 3) to the answer of a request."""
    receipt = sign(
        account_id=attempt.account_id,
        event_id=attempt.event_id,
        order_id=attempt.order_id,
        body_sha256=attempt.sha256,
        accepted_at=attempt.at,
        event_type=attempt.event_type,
    )
    # Appended as the last member, before the closing brace.
    resp.data = (resp.data or b"{}")[:-1] + b',"receipt":"%s"}' % receipt.encode()
    resp.set_header("Preference-Applied", PREFERENCE)


def sign(
    *,
    account_id: object,
    event_id: object,
    order_id: object,
    body_sha256: str,
    accepted_at: float,
    event_type: str | None,
) -> str:
    """Return the receipt of an accepted request. At 30 us it needs no thread.

    Args:
        account_id: of the sender.
        event_id: the message's id.
        order_id: the order that it is about.
        body_sha256: the hash of the raw body, in hexadecimal digits.
        accepted_at: its arrival, in seconds since 1970.
        event_type: of the message; the receipt of a test has the claim `test`.
    """
    public, private = signing_keys()[0]
    claims: dict[str, object] = {
        "iss": ISSUER,
        "sub": str(account_id),
        "jti": str(event_id),
        "iat": int(accepted_at),
        "event_id": str(event_id),
        "order_id": str(order_id),
        "body_sha256": body_sha256,
    }
    event = EVENT_TYPES.get(event_type or "")
    if event is not None and event.IS_TEST:
        claims["test"] = True
    return jwt.encode(claims, private, ALGORITHM, headers={"typ": TYPE, "kid": public.kid})


def keys(_: Session, __: Call[None, None]) -> Answer:
    """Return the public keys."""
    return Answer(200, JwkSet(keys=tuple(public for public, _ in signing_keys())))


def show(session: Session, call: Call[None, None]) -> Answer:
    """Return the receipt of an accepted request of the account; 404 for any other event."""
    try:
        event_id = UUID(call.path["event_id"])
    except ValueError:
        raise ApiError(404, *_NOT_FOUND) from None
    # Copies under one key have the same event id: the first one made the order.
    request = session.scalar(
        select(WebhookRequest)
        .where(WebhookRequest.event_id == event_id, WebhookRequest.account_id == call.caller)
        # A request that could not be stored (503) has an event id as well.
        .where(WebhookRequest.accepted)
        .order_by(WebhookRequest.at)
        .limit(1)
    )
    if request is None or request.body_sha256 is None:
        raise ApiError(404, *_NOT_FOUND)
    return Answer(
        200,
        Receipt(
            receipt=sign(
                account_id=request.account_id,
                event_id=request.event_id,
                order_id=request.order_id,
                body_sha256=request.body_sha256.hex(),
                accepted_at=request.at.timestamp(),
                event_type=request.event_type,
            )
        ),
    )


def _public(private: Ed25519PrivateKey) -> Jwk:
    x = _base64url(private.public_key().public_bytes_raw())
    # The thumbprint of the key: RFC 7638, with the members of RFC 8037, 2.
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    return Jwk(kid=_base64url(hashlib.sha256(members.encode()).digest()), x=x)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


_NOT_FOUND = (
    "receipt_not_found",
    "You have no accepted request with this event id in the request log. One that was just "
    "answered is there about a second later.",
)

ROUTES = (
    Route(
        method="GET",
        path="/webhooks/receipts/keys/",
        handler=keys,
        summary="The public keys of receipts, as a JWK set",
        answers={200: JwkSet},
        tag="Webhooks",
    ),
    Route(
        method="GET",
        path="/webhooks/receipts/{event_id}/",
        handler=show,
        summary="The signed receipt of an accepted request",
        answers={200: Receipt},
        errors=((404, *_NOT_FOUND),),
        bearer=True,
        tag="Webhooks",
    ),
)
