"""The hot path: one signed order in, one confirmed message out.

The order of the checks is part of the contract: headers present, key known, body size, signature,
state, rate limit, decoding. Nothing has an effect before the signature is right.
"""

import re
import time
from typing import Literal
from uuid import UUID

import falcon
import msgspec
from falcon.asgi import Request, Response

from services.ingress import order_bodies, signatures
from services.ingress.accepting import Acceptor
from services.ingress.metrics import Metrics
from services.ingress.secret_cache import CachedSecret, SecretCache
from shared.bus.events import SecretRotate
from shared.bus.message import message_for
from shared.db.session import is_database_away
from shared.http.errors import ApiError, too_many_requests, unavailable
from shared.http.mount import client_address, read_body, write_error
from shared.http.rate_limits import TokenBuckets
from shared.http.route import Operation

EXPIRED = "Webhook secret expired. New secret generated. Please update your configuration."
# An expired secret is rotated by its first use; further ones within this time add nothing.
ROTATE_AGAIN_SECONDS = 60.0
MAX_KEY_LENGTH = 200

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")  # W3C, 3.2


class OrderWebhook:
    """`POST /webhooks/orders/`.

    Args:
        secrets: the cache of this worker.
        acceptor: makes messages safe.
        accounts: how much an account may send.
        refusals: how often an address may be refused.
        metrics: counts outcomes.
        max_body_bytes: the largest body.
    """

    def __init__(
        self,
        secrets: SecretCache,
        acceptor: Acceptor,
        accounts: TokenBuckets,
        refusals: TokenBuckets,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self._secrets = secrets
        self._acceptor = acceptor
        self._accounts = accounts
        self._refusals = refusals
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._rotated: dict[UUID, float] = {}

    async def on_post(self, req: Request, resp: Response) -> None:
        """Accept or refuse one request."""
        started = time.perf_counter()
        try:
            order_id = await self._accept(req)
        except ApiError as error:
            write_error(resp, error)
            code = error.code
        else:
            resp.status = falcon.HTTP_201
            resp.content_type = falcon.MEDIA_JSON
            resp.data = b'{"status":"success","order_id":"%s"}' % order_id.encode()
            code = "accepted"
        self._metrics.webhook(code, time.perf_counter() - started)

    async def _accept(self, req: Request) -> str:
        key, signature = self._authentication(req)
        secret = await self._secret(req, key)
        body = await read_body(req, self._max_body_bytes)
        if not signatures.matches(key, body, signature):
            raise self._refuse(req, "invalid_signature", "Invalid signature")
        now = time.time()
        if not secret.is_valid(now):
            raise await self._not_valid(req, secret, now)
        wait = self._accounts.take(secret.account_id)
        if wait:
            raise too_many_requests(wait)
        _require_json(req)
        try:
            order_id, message = order_bodies.read(body, secret.account_id, _traceparent(req))
        except order_bodies.BodyError as error:
            raise ApiError(400, "invalid_body", str(error)) from None
        await self._acceptor.accept(message)
        return str(order_id)

    def _authentication(self, req: Request) -> tuple[bytes, bytes]:
        """The two headers, as bytes: what is in them may be anything."""
        key = signature = None
        for name, value in req.scope["headers"]:
            if name == b"x-api-key":
                if key is not None:
                    raise self._refuse(req, "invalid_api_key", "Invalid API key")
                key = value
            elif name == b"x-webhook-signature":
                if signature is not None:
                    raise self._refuse(req, "invalid_signature", "Invalid signature")
                signature = value
        if not key or not signature:
            raise self._refuse(req, "missing_authentication", "Missing authentication headers")
        return key, signature

    async def _secret(self, req: Request, key: bytes) -> CachedSecret:
        secret = self._secrets.peek(key)
        if secret is None and len(key) <= MAX_KEY_LENGTH:
            # Only this costs the database something, so only here does a guesser wait.
            wait = self._refusals.is_empty(client_address(req))
            if wait:
                raise too_many_requests(wait)
            try:
                secret = await self._secrets.find(key)
            except Exception as error:
                if not is_database_away(error):
                    raise
                raise unavailable(
                    "unavailable", "The API key could not be checked. Try again shortly."
                ) from None
        if secret is None or secret.state == "revoked":
            raise self._refuse(req, "invalid_api_key", "Invalid API key")
        return secret

    async def _not_valid(self, req: Request, secret: CachedSecret, now: float) -> ApiError:
        if not secret.is_expired(now):
            return self._refuse(req, "invalid_api_key", "Invalid API key")
        if self._rotated.get(secret.id, 0.0) + ROTATE_AGAIN_SECONDS < now:
            command = SecretRotate(
                account_id=secret.account_id, cause="expired_use", secret_id=secret.id
            )
            # Made safe before the sentence is said, so that the sentence is true.
            await self._acceptor.accept(
                message_for(command, source=order_bodies.SOURCE, correlation_id=secret.account_id)
            )
            self._rotated = {
                id_: at for id_, at in self._rotated.items() if at + ROTATE_AGAIN_SECONDS >= now
            }
            self._rotated[secret.id] = now
        return ApiError(401, "secret_expired", EXPIRED)

    def _refuse(self, req: Request, code: str, sentence: str) -> ApiError:
        wait = self._refusals.take(client_address(req))
        return too_many_requests(wait) if wait else ApiError(401, code, sentence)


def _require_json(req: Request) -> None:
    encoding = req.get_header("Content-Encoding")
    if encoding and encoding.lower() != "identity":
        raise ApiError(415, "unsupported_media_type", "Send the body plain, not compressed.")
    content_type = req.content_type
    if content_type:
        media = content_type.partition(";")[0].strip().lower()
        if media != "application/json" and not media.endswith("+json"):
            raise ApiError(415, "unsupported_media_type", "Send Content-Type: application/json.")


def _traceparent(req: Request) -> str | None:
    given = req.get_header("traceparent")
    return given if given and _TRACEPARENT.match(given) else None


class Accepted(msgspec.Struct, kw_only=True):
    """The order is safe: on the bus, or in the database."""

    status: Literal["success"]
    order_id: UUID


OPERATION = Operation(
    method="POST",
    path="/webhooks/orders/",
    summary="Send a signed order event",
    body=tuple(order_bodies.BODIES.values()),
    headers={
        "X-API-Key": "Your webhook secret, `whsk_...`.",
        "X-Webhook-Signature": (
            "The hexadecimal HMAC-SHA256 of the raw body, keyed with the whole secret."
        ),
    },
    answers={201: Accepted},
    errors=(
        (400, "invalid_body", "The body is not as it should be; the sentence says where."),
        (401, "missing_authentication", "Missing authentication headers"),
        (401, "invalid_api_key", "Invalid API key"),
        (401, "invalid_signature", "Invalid signature"),
        (401, "secret_expired", EXPIRED),
        (413, "body_too_large", "The body is larger than 262144 bytes."),
        (415, "unsupported_media_type", "Send Content-Type: application/json."),
        (429, "rate_limited", "Too many requests."),
        (503, "overloaded", "Too much at once. Try again shortly."),
        (503, "unavailable", "The order could not be stored. Send it again shortly."),
    ),
    tag="Webhooks",
)
