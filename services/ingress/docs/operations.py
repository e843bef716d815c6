"""The webhook's operations, for the documentation."""

from typing import Literal
from uuid import UUID

import msgspec

from services.ingress.platforms.known import PLATFORMS
from services.ingress.platforms.platform import MAX_BODY_BYTES, Platform
from services.ingress.shops.endpoint import NO_ACCOUNT, Noted
from services.ingress.webhook.acceptor import UNCERTAIN
from services.ingress.webhook.known_keys import IN_USE, REUSED
from services.ingress.webhook.rules import BAD_KEY, EXPIRED, NOT_JSON, SCHEME_NOT_ALLOWED, STALE
from shared.http.errors import BLOCKED, OVERLOADED
from shared.http.route import Operation
from shared.intake import bodies


class Accepted(msgspec.Struct, kw_only=True):
    """The order is stored, on the bus or in the database.

    `warnings`: at most five sentences on unknown members whose name is close to that of an optional
    member.
    """

    status: Literal["success"]
    order_id: UUID
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    receipt: str | msgspec.UnsetType = msgspec.UNSET


_PREFER = {"Prefer": "`receipt` asks for a signed receipt (RFC 7240)."}
_COMMON = (
    (400, "invalid_body", "The body is invalid; `faults` says where and how."),
    (401, "missing_authentication", "Missing authentication headers"),
    (401, "invalid_signature", "Invalid signature"),
    (401, "secret_expired", EXPIRED),
    BLOCKED,
    (403, "address_not_allowed", "The account's allowlist does not have the address."),
    (403, "scheme_not_allowed", SCHEME_NOT_ALLOWED),
    IN_USE,
    REUSED,
    (413, "body_too_large", "The body is larger than `max_body_bytes` of `GET /webhook/limits/`."),
    (415, "unsupported_media_type", NOT_JSON),
    (429, "rate_limited", "Too many requests."),
    OVERLOADED,
    (503, "unavailable", UNCERTAIN),
)


_TOO_LARGE = (
    f"The body is larger than {MAX_BODY_BYTES >> 20} MiB, and than `max_body_bytes` of "
    "`GET /webhook/limits/`."
)


def _of_platform(platform: Platform) -> Operation:
    required = {name: platform.headers[name] for name in platform.required}
    optional = {name: text for name, text in platform.headers.items() if name not in required}
    errors = tuple(
        (413, "body_too_large", _TOO_LARGE) if error[1] == "body_too_large" else error
        for error in _COMMON
        if error not in (IN_USE, REUSED)
    )
    if platform.ping is not None:
        errors += ((404, "not_found", NO_ACCOUNT),)
    return Operation(
        method="POST",
        path=platform.path,
        summary=f"Where {platform.title} sends the webhooks of a shop",
        body=platform.order,
        headers=required,
        optional_headers=optional | _PREFER,
        answers={200: Noted, 201: Accepted},
        errors=errors,
        tag="Webhooks",
    )


OPERATIONS = (
    Operation(
        method="POST",
        path="/webhooks/orders/",
        summary="Send a signed order event",
        body=tuple(bodies.BODIES.values()),
        headers={
            "X-API-Key": "Your webhook secret, `whsk_...`.",
            "X-Webhook-Signature": (
                "The hexadecimal HMAC-SHA256 of the raw body, keyed with the whole secret."
            ),
        },
        optional_headers={
            "Idempotency-Key": "The same for each try to send one event: it counts once.",
            **_PREFER,
        },
        answers={201: Accepted},
        errors=(
            *_COMMON,
            (400, "invalid_idempotency_key", BAD_KEY),
            (401, "invalid_api_key", "Invalid API key"),
        ),
        tag="Webhooks",
    ),
    Operation(
        method="POST",
        path="/webhooks/{account_id}/orders/",
        summary="Send an order event signed by Standard Webhooks",
        body=tuple(bodies.BODIES.values()),
        headers={
            "webhook-id": "The event's id, the same for each try to send it: it counts once.",
            "webhook-timestamp": "When this try was made, in seconds since 1970.",
            "webhook-signature": (
                "`v1,` and the base64 of the HMAC-SHA256 of `id.timestamp.body`, keyed with the "
                "bytes behind `whsec_`; or `v1a,` and that of the Ed25519 signature under a public "
                "key of yours; several, separated by spaces, while secrets or keys change."
            ),
        },
        optional_headers=_PREFER,
        answers={201: Accepted},
        errors=(*_COMMON, (401, "invalid_timestamp", STALE)),
        tag="Webhooks",
    ),
    *(_of_platform(platform) for platform in PLATFORMS),
)
