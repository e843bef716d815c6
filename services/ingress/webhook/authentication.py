"""The two ways to sign a webhook of one's own (shops: `shops/authentication.py`).

Each finds out who sent a request, or refuses it.

The order of the checks is part of the contract: headers present, sender known (or, where all are
to be answered alike, the time), body size, signature. Nothing has an effect before that is right.
"""

import os
from functools import lru_cache
from typing import Protocol
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
from shared.http.bodies import Kept, read_body
from shared.security.encryption import CannotOpenError

MAX_KEY_LENGTH = 200
_UUID_LENGTH = len("urn:uuid:") + 36  # RFC 9562, 4: the longest form


class Scheme(Protocol):
    """A way to sign."""

    name: str
    tells_copies: bool
    """Whether a copy of a request is told from a new one, by its signed id and time."""

    async def authenticate(self, req: Request, attempt: Attempt, account_id: str) -> Signer:
        """Find what a request is rightly signed with; its state is not looked at yet.

        Args:
            req: the request.
            attempt: filled in.
            account_id: of the path; empty where that has none.

        Raises:
            ApiError: it is not signed, or not rightly.
        """
        ...


class ApiKeyScheme:
    """`X-API-Key` names the secret, `X-Webhook-Signature` signs the body.

    Args:
        secrets: the cache of this worker.
        refusals: counts those of an address.
        max_body_bytes: the largest body.
    """

    name = "x-api-key"
    tells_copies = False

    def __init__(self, secrets: SecretCache, refusals: Refusals, max_body_bytes: int) -> None:
        self._secrets = secrets
        self._refusals = refusals
        self._max_body_bytes = max_body_bytes

    async def authenticate(self, req: Request, attempt: Attempt, _: str) -> CachedSecret:
        """See `Scheme`."""
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
            # A revoked one too: its owner wants to know who still sends with it.
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


class StandardScheme:
    """Standard Webhooks: the account is in the path and the secret stays at home.

    An account that is not there, one without a secret and a wrong signature are answered alike,
    after the same work: a signature by a public key is verified as often for an account that has
    none as for one that has all it may have.

    Args:
        secrets: the cache of this worker.
        refusals: counts those of an address.
        max_body_bytes: the largest body.
    """

    name = "standard-webhooks"
    tells_copies = True

    def __init__(self, secrets: SecretCache, refusals: Refusals, max_body_bytes: int) -> None:
        self._secrets = secrets
        self._refusals = refusals
        self._max_body_bytes = max_body_bytes
        self._nobodys_key = os.urandom(32)
        self._nobodys_public_key = Ed25519PrivateKey.generate().public_key()

    async def authenticate(self, req: Request, attempt: Attempt, account_id: str) -> Signer:
        """See `Scheme`."""
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
        async with Kept(req, self._max_body_bytes) as body:
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

    async def _look_again(self, req: Request, account: UUID) -> bool:
        with self._refusals.looking_up(req):
            return await self._secrets.look_again(account)

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
        """The secret that signed, and whether there is one that cannot be opened."""
        given = standard_webhooks.listed(attempt.signature)
        candidates = self._secrets.of(account)
        if not candidates:
            standard_webhooks.matches(self._nobodys_key, signed, given)
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
        theirs = self._secrets.public_keys.of(account)
        for held in theirs:
            if standard_webhooks.verifies(held.key, signed, given):
                return held
        for _ in range(MAX_PUBLIC_KEYS - len(theirs)):
            standard_webhooks.verifies(self._nobodys_public_key, signed, given)
        return None


def account_of(text: str) -> UUID | None:
    """The account that a path names; None where that is no id."""
    # What is kept is a stranger's: it is no longer than an id can be.
    return _parsed(text) if len(text) <= _UUID_LENGTH else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
