"""Every live webhook secret in memory, so that checking a request needs no database.

Found by the SHA-256 of the key, which is itself what its sender signs with, or by the account,
where the secret is not sent: then its sealed bytes are opened at the first use. Three ways keep the
cache true: `secret.*` events within milliseconds, a poll of what changed lately behind that, and a
look into the database for a key or an account never seen. With an account's secrets always comes
its policy, so that no secret is ever there without it.
"""

import asyncio
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, false, or_, select, true

from services.ingress.cached_secret import CachedSecret
from services.ingress.policies import Policies
from shared.db.models import WebhookPolicy, WebhookSecret
from shared.db.session import engine
from shared.webhook_keys import key_hash

REMEMBER_EXPIRED = timedelta(days=30)
REMEMBER_UNKNOWN_SECONDS = 5.0
MAX_UNKNOWN = 10_000
# A transaction may commit a change some time after the trigger stamped it.
POLL_OVERLAP = timedelta(seconds=30)
# How many of an account's secrets a signature is tried against, the newest ones.
MAX_TRIED = 5
# Secrets loaded at a time at the start: all at once they would take four times the memory.
PAGE = 2_000

Key = bytes | UUID
Condition = ColumnElement[bool]
Query = Select[*tuple[Any, ...]]
Found = tuple[Sequence[Any], Sequence[Any]]
_secrets = select(
    WebhookSecret.key_hash,
    WebhookSecret.id,
    WebhookSecret.account_id,
    WebhookSecret.sealed,
    WebhookSecret.state,
    WebhookSecret.expires_at,
    WebhookSecret.replaced_at,
    WebhookSecret.updated_at,
)
_policies = select(
    WebhookPolicy.account_id,
    WebhookPolicy.allowed_networks,
    WebhookPolicy.rate_per_second,
    WebhookPolicy.updated_at,
)
_by_id = attrgetter("id")


class SecretCache:
    """The cache of one worker.

    Args:
        threads: where database queries run.
        policies: kept true together with the secrets.
    """

    def __init__(self, threads: ThreadPoolExecutor, policies: Policies) -> None:
        self._threads = threads
        self._policies = policies
        self._secrets: dict[bytes, CachedSecret] = {}
        self._accounts: dict[UUID, list[CachedSecret]] = {}
        self._unknown: OrderedDict[Key, float] = OrderedDict()
        self._lookups: dict[Key, asyncio.Task[None]] = {}
        self._seen_until = datetime.now(UTC)
        self.refreshed_at: float | None = None
        """When it last agreed with the database, on the monotonic clock; None before the start."""
        self.misses = 0
        """How many keys and accounts were looked up in the database."""

    def __len__(self) -> int:
        return len(self._secrets)

    def peek(self, key: bytes) -> CachedSecret | None:
        """The secret behind a key, if it is in memory."""
        return self._secrets.get(key_hash(key))

    async def find(self, key: bytes) -> CachedSecret | None:
        """The secret behind a key, from the database where memory does not have it.

        However many ask for the same key at once, the database is asked once; that it does not know
        a key is remembered for `REMEMBER_UNKNOWN_SECONDS`.

        Raises:
            sqlalchemy.exc.DBAPIError: it would have to be asked and is away.
        """
        hashed = key_hash(key)
        await self._ensure(hashed, self._secrets, lambda: WebhookSecret.key_hash == hashed)
        return self._secrets.get(hashed)

    def of(self, account_id: UUID) -> list[CachedSecret]:
        """An account's secrets in memory that are not revoked, the newest `MAX_TRIED` first."""
        held = self._accounts.get(account_id)
        if held is None:
            return []
        if len(held) == 1:
            return held if held[0].state != "revoked" else []
        return [secret for secret in reversed(held) if secret.state != "revoked"][:MAX_TRIED]

    async def look_again(self, account_id: UUID) -> None:
        """Load an account's secrets, for a signature that none of those in memory has made.

        The account may be new to this worker, or its newest secret. Like `find` once at a time; and
        once in `REMEMBER_UNKNOWN_SECONDS`, for an account that is there as for one that is not.

        Raises:
            sqlalchemy.exc.DBAPIError: the database would have to be asked and is away.
        """

        def theirs() -> Condition:
            return (WebhookSecret.account_id == account_id) & _is_remembered()

        await self._ensure(account_id, {}, theirs)

    async def warm(self) -> None:
        """Load every secret that a request may still be signed with, or be told about."""
        policies: Condition = true()
        after = UUID(int=0)
        while True:
            page = _secrets.where(_is_remembered(), WebhookSecret.id > after)
            page = page.order_by(WebhookSecret.id).limit(PAGE)
            secrets, theirs = await self._query(page, policies)
            self._put(secrets, theirs)
            if len(secrets) < PAGE:
                break
            after, policies = secrets[-1].id, false()
        self.refreshed_at = time.monotonic()

    async def poll(self) -> None:
        """Load what has changed since the last time."""
        secrets = WebhookSecret.updated_at > self._seen_until - POLL_OVERLAP
        policies: Condition = true()
        if self._policies.seen_until.year > 1:
            policies = WebhookPolicy.updated_at > self._policies.seen_until - POLL_OVERLAP
        self._put(*await self._query(_secrets.where(secrets), policies))
        self.refreshed_at = time.monotonic()

    async def refresh(self, accounts: Iterable[UUID]) -> None:
        """Load the secrets of some accounts anew."""
        theirs = WebhookSecret.account_id.in_(list(accounts))
        self._put(*await self._query(_secrets.where(theirs)))

    async def _ensure(
        self, key: Key, held: Mapping[Any, Any], condition: Callable[[], Condition]
    ) -> None:
        if key in held or self._unknown.get(key, 0.0) > time.monotonic():
            return
        lookup = self._lookups.get(key)
        if lookup is None:
            self.misses += 1
            lookup = asyncio.get_running_loop().create_task(self._look_up(key, condition()))
            self._lookups[key] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(key, None))
        await asyncio.shield(lookup)

    async def _look_up(self, key: Key, condition: Condition) -> None:
        secrets, policies = await self._query(_secrets.where(condition))
        self._put(secrets, policies)
        if not secrets or isinstance(key, UUID):
            self._unknown[key] = time.monotonic() + REMEMBER_UNKNOWN_SECONDS
            while len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)

    async def _query(self, secrets: Query, policies: Condition | None = None) -> Found:
        """Secrets and policies; without a condition for these, those of the secrets' accounts."""

        def run() -> Found:
            with engine().connect() as connection:
                rows = connection.execute(secrets).all()
                theirs = policies
                if theirs is None:
                    theirs = WebhookPolicy.account_id.in_({row.account_id for row in rows})
                return rows, connection.execute(_policies.where(theirs)).all()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _put(self, secrets: Iterable[Any], policies: Iterable[Any] = ()) -> None:
        self._policies.put(policies)
        for row in secrets:
            hashed = bytes(row.key_hash)
            held = self._secrets.get(hashed)
            if held is not None:
                held.take(row)
            else:
                held = self._secrets[hashed] = CachedSecret(row)
                insort(self._accounts.setdefault(held.account_id, []), held, key=_by_id)
                self._unknown.pop(hashed, None)
                self._unknown.pop(held.account_id, None)
            self._seen_until = max(self._seen_until, row.updated_at)


def _is_remembered() -> Condition:
    return or_(
        WebhookSecret.state.in_(("active", "retiring")),
        WebhookSecret.expires_at > datetime.now(UTC) - REMEMBER_EXPIRED,
    )
