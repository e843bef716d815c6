"""Checks after authentication: block, allowlist, allowed schemes, secret's state, rate limit.

The rate and deprecation headers that it sets are in every later answer, refusals included.
"""

import math
import time
from collections.abc import Hashable
from email.utils import formatdate
from functools import lru_cache
from uuid import UUID

from falcon.asgi import Request, Response

from services.ingress.credentials.database_clock import DatabaseClock
from services.ingress.credentials.policies import Policies
from services.ingress.credentials.public_key import Signer
from services.ingress.webhook import rules
from services.ingress.webhook.acceptor import Acceptor
from services.ingress.webhook.refusals import Refusals, as_error
from shared.bus.contract.events import SecretRotate
from shared.bus.contract.message import message_for
from shared.http.callers import client_address
from shared.http.errors import ApiError, account_blocked, too_many_requests
from shared.intake.bodies import SOURCE
from shared.token_buckets import TokenBuckets, wait_for

# The first use of an expired secret has it rotated; further uses within this time do not.
ROTATE_AGAIN_SECONDS = 60.0
TEST_RATE = 10
"""Requests a second signed with a test secret; they do not count for the account's own rate."""


class Admission:
    """Admits the authenticated requests of one worker.

    Args:
        acceptor: stores the command that replaces an expired secret.
        refusals: limits refusals by network.
        policies: of the accounts that have one.
        accounts: the token buckets of the accounts.
        rate: requests a second for an account without its own rate.
        docs_url: the page that explains the replacement of secrets.
        clock: the time by which secrets expire.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        refusals: Refusals,
        policies: Policies,
        accounts: TokenBuckets,
        rate: int,
        docs_url: str,
        clock: DatabaseClock,
    ) -> None:
        self._acceptor = acceptor
        self._refusals = refusals
        self._policies = policies
        self._accounts = accounts
        self._rate = rate
        self._link = f'<{docs_url}>; rel="deprecation"; type="text/html"'
        self._clock = clock
        self._rotated: dict[UUID, float] = {}

    async def admit(
        self, req: Request, resp: Response, secret: Signer, *, detects_copies: bool
    ) -> None:
        """Check whether a request may be handled, and set the answer's headers.

        Args:
            req: the request.
            resp: its answer.
            secret: the secret or public key that verified it.
            detects_copies: the attribute of its `Scheme`.

        Raises:
            ApiError: it may not; the headers are set all the same.
        """
        policy = self._policies.get(secret.account_id)
        if policy is not None and policy.is_blocked:
            raise account_blocked()
        if policy is not None and not policy.allows(client_address(req)):
            raise ApiError(
                403,
                "address_not_allowed",
                f"The account's allowlist does not have the address {client_address(req):.64}.",
            )
        if policy is not None and policy.is_standard_only and not detects_copies:
            raise as_error(rules.scheme_not_allowed())
        now = self._clock.now()
        if not secret.is_valid(now):
            raise await self._not_valid(req, secret, now)
        if secret.state == "retiring":
            deprecation, sunset = _dates(secret.replaced_at, secret.expires_at)
            if deprecation:
                resp.set_header("Deprecation", deprecation)
            resp.set_header("Sunset", sunset)
            resp.set_header("Link", self._link)
        rate = self._rate if policy is None or policy.rate is None else policy.rate
        spender: Hashable = secret.account_id
        if secret.is_test:
            rate, spender = min(rate, TEST_RATE), (spender, "test")
        left = self._accounts.spend(spender, rate, rate)
        limit, rate_policy = _limits(rate)
        remaining = str(int(left)) if left > 0 else "0"
        resp.set_header("RateLimit-Policy", rate_policy)
        # A bucket holds one second's tokens, so it is full again within a second.
        resp.set_header("RateLimit", f'"account";r={remaining};t=1')
        resp.set_header("RateLimit-Limit", limit)
        resp.set_header("RateLimit-Remaining", remaining)
        resp.set_header("RateLimit-Reset", "1")
        if left < 0:
            raise too_many_requests(wait_for(left, rate))

    async def _not_valid(self, req: Request, secret: Signer, now: float) -> ApiError:
        refusal = rules.state_refusal(secret.state_at(now)) or rules.invalid_api_key()
        if refusal.code != "secret_expired":
            return self._refusals.refuse(req, refusal)
        now = time.monotonic()
        if self._rotated.get(secret.id, -ROTATE_AGAIN_SECONDS) + ROTATE_AGAIN_SECONDS < now:
            command = SecretRotate(
                account_id=secret.account_id, cause="expired_use", secret_id=secret.id
            )
            # The answer says that a new secret was generated: the command is stored before it.
            await self._acceptor.accept(
                message_for(command, source=SOURCE, correlation_id=secret.account_id)
            )
            self._rotated = {
                id_: at for id_, at in self._rotated.items() if at + ROTATE_AGAIN_SECONDS >= now
            }
            self._rotated[secret.id] = now
        return as_error(refusal)


@lru_cache(maxsize=1024)
def _limits(rate: int) -> tuple[str, str]:
    """Return `RateLimit-Limit` of an early draft, and `RateLimit-Policy` of the current one.

    draft-ietf-httpapi-ratelimit-headers-11, 3: `q` requests in `w` seconds.
    """
    return str(rate), f'"account";q={rate};w=1'


@lru_cache(maxsize=1024)
def _dates(replaced_at: float | None, expires_at: float) -> tuple[str, str]:
    """Return `Deprecation` (RFC 9745, 2.1; empty if unknown) and `Sunset` (RFC 8594, 3)."""
    deprecation = "" if replaced_at is None else f"@{math.floor(replaced_at)}"
    return deprecation, formatdate(expires_at, usegmt=True)
