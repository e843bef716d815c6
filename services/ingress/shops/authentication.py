"""Whose a platform's delivery is: its own scheme, over one of the account's secrets."""

import os
from collections.abc import Sequence
from uuid import UUID

from falcon.asgi import Request

from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.secret import CachedSecret
from services.ingress.platforms import platform as platforms
from services.ingress.platforms.platform import Platform
from services.ingress.request_log.attempt import Attempt
from services.ingress.webhook import rules
from services.ingress.webhook.authentication import account_of
from services.ingress.webhook.refusals import Refusals, unopened
from shared.http.bodies import Kept
from shared.security.encryption import CannotOpenError


class PlatformScheme:
    """A platform's own scheme: the account is in the path, and the body alone is signed.

    Like Standard Webhooks it answers a stranger alike, whatever accounts and secrets there are; by
    the time that takes, which is that of a comparison a secret, one may learn how many there are.

    Args:
        platform: whose.
        secrets: the cache of this worker.
        refusals: counts those of an address.
        max_body_bytes: the largest body.
    """

    tells_copies = False

    def __init__(
        self, platform: Platform, secrets: SecretCache, refusals: Refusals, max_body_bytes: int
    ) -> None:
        self.name = platform.name
        self._platform = platform
        self._given = platform.name if platform.gives_secret else ""
        self._secrets = secrets
        self._refusals = refusals
        self._max_body_bytes = max(max_body_bytes, platforms.MAX_BODY_BYTES)
        self._nobodys_keys = (os.urandom(32),) * (1 if platform.gives_secret else 2)

    async def authenticate(self, req: Request, attempt: Attempt, account_id: str) -> CachedSecret:
        """See `Scheme`."""
        account = account_of(account_id)
        if account is not None and (self._secrets.of(account) or self._held(account)):
            attempt.account_id = account
        try:
            rules.read_platform_headers(req.scope["headers"], self._platform, attempt)
        except rules.Refusal as refusal:
            raise self._refusals.refuse(req, refusal) from None
        async with Kept(req, self._max_body_bytes) as body:
            attempt.body = body
            secret = await self._signed_with(req, account, attempt) if account else None
        if secret is None:
            faults = rules.body_faults(req.scope["headers"], attempt.body)
            wrong = rules.invalid_signature(self.name, attempt.signature, *faults)
            raise self._refusals.refuse(req, wrong)
        return secret

    async def _signed_with(
        self, req: Request, account: UUID, attempt: Attempt
    ) -> CachedSecret | None:
        secret = self._match(account, attempt.body, attempt)
        if secret is None and await self._look_again(req, account):
            secret = self._match(account, attempt.body, attempt)
        return secret

    async def _look_again(self, req: Request, account: UUID) -> bool:
        with self._refusals.looking_up(req):
            return await self._secrets.look_again(account, self._given)

    def _held(self, account: UUID) -> Sequence[CachedSecret]:
        if not self._given:
            return self._secrets.of(account)
        # What a business has given has no other to be told of: it ends, and that is all.
        return self._secrets.given(account, self._given)

    def _match(self, account: UUID, body: bytes, attempt: Attempt) -> CachedSecret | None:
        candidates = self._held(account)
        if not candidates:
            platforms.matches(self._nobodys_keys, body, attempt.signature)
            return None
        attempt.account_id = account
        closed = False
        for secret in candidates:
            try:
                keys = rules.platform_keys(secret.raw(), self._platform)
            except CannotOpenError:
                closed = True
                continue
            if platforms.matches(keys, body, attempt.signature):
                attempt.secret = secret
                return secret
        if closed:
            raise unopened()
        return None
