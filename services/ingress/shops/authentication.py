"""Authenticates a platform's delivery by the platform's scheme and the account's secrets."""

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
from services.ingress.webhook.authentication import Scheme, account_of
from services.ingress.webhook.refusals import Refusals, unopened
from shared.http.bodies import CountedBody
from shared.security.encryption import CannotOpenError


class PlatformScheme(Scheme):
    """A platform's own scheme: the path names the account, and only the body is signed.

    Like Standard Webhooks it gives a stranger the same answer whatever accounts and secrets exist.
    The time of the answer grows with each secret compared, which may reveal their number.

    Args:
        platform: whose scheme it is.
        secrets: the cache of this worker.
        refusals: limits refusals by network.
        max_body_bytes: the largest body; never less than the platform's own limit.
    """

    def __init__(
        self, platform: Platform, secrets: SecretCache, refusals: Refusals, max_body_bytes: int
    ) -> None:
        self.name = platform.name
        self._platform = platform
        self._given = platform.name if platform.gives_secret else ""
        super().__init__(secrets, refusals, max(max_body_bytes, platforms.MAX_BODY_BYTES))
        self._dummy_keys = (os.urandom(32),) * (1 if platform.gives_secret else 2)

    async def authenticate(self, req: Request, attempt: Attempt, account_id: str) -> CachedSecret:
        """Return the secret that signed the body; see `Scheme`."""
        account = account_of(account_id)
        if account is not None and (self._secrets.of(account) or self._held(account)):
            attempt.account_id = account
        try:
            rules.read_platform_headers(req.scope["headers"], self._platform, attempt)
        except rules.Refusal as refusal:
            raise self._refusals.refuse(req, refusal) from None
        async with CountedBody(req, self._max_body_bytes) as body:
            attempt.body = body
            secret = self._match(account, attempt) if account else None
            if secret is None and account and await self._look_again(req, account, self._given):
                secret = self._match(account, attempt)
        if secret is None:
            faults = rules.body_faults(req.scope["headers"], attempt.body)
            wrong = rules.invalid_signature(self.name, attempt.signature, *faults)
            raise self._refusals.refuse(req, wrong)
        return secret

    def _held(self, account: UUID) -> Sequence[CachedSecret]:
        if not self._given:
            return self._secrets.of(account)
        # A secret made by a platform has no successor of ours to announce: expired, it is unknown.
        return self._secrets.given(account, self._given)

    def _match(self, account: UUID, attempt: Attempt) -> CachedSecret | None:
        candidates = self._held(account)
        if not candidates:
            platforms.matches(self._dummy_keys, attempt.body, attempt.signature)
            return None
        attempt.account_id = account
        closed = False
        for secret in candidates:
            try:
                keys = rules.platform_keys(secret.raw(), self._platform)
            except CannotOpenError:
                closed = True
                continue
            if platforms.matches(keys, attempt.body, attempt.signature):
                attempt.secret = secret
                return secret
        if closed:
            raise unopened()
        return None
