"""The two signature schemes of a business's own programs (shops: `shops/authentication.py`).

The order of the checks is part of the contract: headers present, sender known (for Standard
Webhooks, which answers all senders alike, the time instead), body size, signature. Nothing has an
effect before the signature is verified.
"""

import os
from abc import ABC, abstractmethod
from functools import lru_cache
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from falcon.asgi import Request

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.public_key import (
    MAX_PUBLIC_KEYS,
    CachedPublicKey,
    Signer,
)
from services.ingress.credentials.secret import CachedSecret
from services.ingress.request_log.attempt import Attempt
from services.ingress.webhook import hmac_hex, missing_headers, rules, standard_webhooks
from services.ingress.webhook.refusals import Refusals, unopened
from shared.http.bodies import CountedBody, read_body
from shared.security.encryption import CannotOpenError

MAX_KEY_LENGTH = 200
_UUID_LENGTH = len("urn:uuid:") + 36  # RFC 9562, 4: the longest form


class Scheme(ABC):
    """Authenticates requests by one signature scheme.

    Args:
        secrets: the cache of this worker.
        refusals: limits refusals by network.
        max_body_bytes: the largest body.
    """

    name: str
    detects_copies = False
    """Whether it detects a copy of a request, by a signed id and time."""

    def __init__(self, secrets: SecretCache, refusals: Refusals, max_body_bytes: int) -> None:
        self._secrets = secrets
        self._refusals = refusals
        self._max_body_bytes = max_body_bytes

    @abstractmethod
    async def authenticate(self, req: Request, attempt: Attempt, account_id: str) -> Signer:
        """Return the secret or public key whose signature is right, in whatever state it is.

        Args:
            req: the request.
            attempt: its record, to be filled in.
            account_id: of the path; empty where the path has none.

        Raises:
            ApiError: the signature is missing or wrong.
        """

    async def _look_again(self, req: Request, account: UUID, platform: str = "") -> bool:
        with self._refusals.looking_up(req):
            return await self._secrets.look_again(account, platform)


class ApiKeyScheme(Scheme):
    """The scheme in which `X-API-Key` holds the secret and `X-Webhook-Signature` signs the body."""

    name = "x-api-key"

    async def authenticate(self, req: Request, attempt: Attempt, _: str) -> CachedSecret:
        """Return the secret that `X-API-Key` holds; see `Scheme`."""
        try:
            key, signature = rules.read_api_key_headers(req.scope["headers"], attempt)
        except rules.Refusal as refusal:
            raise self._refusals.refuse(req, refusal) from None
        if not signature:
            named = self._secrets.peek(key) if key else None
            if named is not None:
                attempt.secret, attempt.account_id = named, named.account_id
            missing = rules.missing(missing_headers.API_KEY, req.scope["headers"])
            raise self._refusals.refuse(req, missing)
        secret = self._secrets.peek(key) or await self._find(req, key)
        if secret is not None:
            # Also of a revoked one: its owner sees in the request log who still uses it.
            attempt.secret, attempt.account_id = secret, secret.account_id
        if secret is None or secret.state == "revoked":
            raise self._refusals.refuse(req, rules.unknown_key(key))
        body = attempt.body = await read_body(req, self._max_body_bytes, str(secret.account_id))
        if not hmac_hex.matches(key, body, signature):
            faults = rules.body_faults(req.scope["headers"], body)
            wrong = rules.invalid_signature("api_key", signature, *faults)
            raise self._refusals.refuse(req, wrong)
        return secret

    async def _find(self, req: Request, key: bytes) -> CachedSecret | None:
        if len(key) > MAX_KEY_LENGTH:
            return None
        with self._refusals.looking_up(req):
            return await self._secrets.find(key)


class StandardScheme(Scheme):
    """Standard Webhooks: the path names the account, and the secret is never sent.

    An unknown account, an account without a secret and a wrong signature get the same answer after
    the same work: `v1a` signatures are verified `MAX_PUBLIC_KEYS` times however many public keys
    an account has.

    Args:
        secrets: see `Scheme`.
        refusals: see `Scheme`.
        max_body_bytes: see `Scheme`.
    """

    name = "standard-webhooks"
    detects_copies = True

    def __init__(self, secrets: SecretCache, refusals: Refusals, max_body_bytes: int) -> None:
        super().__init__(secrets, refusals, max_body_bytes)
        self._dummy_key = os.urandom(32)
        self._dummy_public_key = Ed25519PrivateKey.generate().public_key()

    async def authenticate(self, req: Request, attempt: Attempt, account_id: str) -> Signer:
        """Return the secret or public key that signed id, timestamp and body; see `Scheme`."""
        account = account_of(account_id)
        if account is not None and self._is_known(account):
            attempt.account_id = account
        now = self._secrets.clock.now()
        try:
            prefix = rules.read_standard_headers(req.scope["headers"], attempt)
            rules.check_time(attempt, now)
        except rules.Refusal as refusal:
            error = self._refusals.refuse(req, refusal)
            if refusal.code == "invalid_timestamp":
                error.more["server_time"] = int(now)
            raise error from None
        async with CountedBody(req, self._max_body_bytes) as body:
            attempt.body = body
            signer = await self._signer(req, account, prefix + body, attempt) if account else None
        if signer is None:
            faults = rules.body_faults(req.scope["headers"], attempt.body)
            wrong = rules.invalid_signature("standard_webhooks", attempt.signature, *faults)
            raise self._refusals.refuse(req, wrong)
        return signer

    async def _signer(
        self, req: Request, account: UUID, signed: bytes, attempt: Attempt
    ) -> Signer | None:
        signer = self._match(account, signed, attempt)
        if signer is None and await self._look_again(req, account):
            signer = self._match(account, signed, attempt)
        return signer

    def _is_known(self, account: UUID) -> bool:
        return bool(self._secrets.of(account) or self._secrets.public_keys.of(account))

    def _match(self, account: UUID, signed: bytes, attempt: Attempt) -> Signer | None:
        secret, closed = self._match_secret(account, signed, attempt)
        signer: Signer | None = secret
        if secret is None:
            given = standard_webhooks.listed_public(attempt.signature)
            signer = self._match_public_key(account, signed, given) if given else None
        if signer is None and closed:
            raise unopened()
        attempt.secret = signer
        return signer

    def _match_secret(
        self, account: UUID, signed: bytes, attempt: Attempt
    ) -> tuple[CachedSecret | None, bool]:
        """Return the secret that signed, and whether any secret could not be decrypted."""
        given = standard_webhooks.listed(attempt.signature)
        candidates = self._secrets.of(account)
        if not candidates:
            standard_webhooks.matches(self._dummy_key, signed, given)
            return None, False
        attempt.account_id = account
        closed = False
        for secret in candidates:
            try:
                raw = secret.raw()
            except CannotOpenError:
                closed = True
                continue
            if standard_webhooks.matches(raw, signed, given):
                return secret, closed
        return None, closed

    def _match_public_key(
        self, account: UUID, signed: bytes, given: list[bytes]
    ) -> CachedPublicKey | None:
        public_keys = self._secrets.public_keys.of(account)
        for public_key in public_keys:
            if standard_webhooks.verifies(public_key.key, signed, given):
                return public_key
        for _ in range(MAX_PUBLIC_KEYS - len(public_keys)):
            standard_webhooks.verifies(self._dummy_public_key, signed, given)
        return None


def account_of(text: str) -> UUID | None:
    """Return the account id of a path; None if it is no UUID."""
    # Strangers fill the cache of `_parsed`: a text longer than an id is kept out of it.
    return _parsed(text) if len(text) <= _UUID_LENGTH else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
