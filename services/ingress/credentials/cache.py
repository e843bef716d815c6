"""The cache of all live webhook secrets and public keys, so that checks need no database.

A secret is found by the SHA-256 of the key that a request sends, or, where the secret is not sent,
by the account; then its sealed bytes are decrypted at the first use. A secret that a platform made
is found by account and platform. Three sources keep the cache current: events, which revoke without
a query; a poll of the changes; and a look-up of an unknown key or account. A query that returns
secrets returns the policy of their accounts too, so that no secret is cached without it.
"""

import asyncio
import time
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any
from uuid import UUID

from services.ingress.credentials import rows
from services.ingress.credentials.database_clock import DatabaseClock
from services.ingress.credentials.policies import Policies
from services.ingress.credentials.public_key import PublicKeys
from services.ingress.credentials.rows import Found, Position
from services.ingress.credentials.secret import MAX_GIVEN_TRIED, CachedSecret, tried
from shared.db.deadline import NoAnswerError
from shared.http.errors import overloaded
from shared.security.webhook_keys import GIVEN_BY, key_hash

REMEMBER_UNKNOWN_SECONDS = 5.0
MAX_UNKNOWN = 10_000
# Secrets that an event revoked before any row showed it.
MAX_REVOKED = 100_000
# Concurrent look-ups: at most a second of work for their threads.
MAX_LOOKUPS = 64
LOOKUP_SECONDS = 2.5
# Rows stored at a time; between two slices the loop handles requests.
SLICE = 500

Holder = UUID | tuple[UUID, str]
"""An account, for our secrets; with a platform, for the secrets that it made for the account."""
Key = bytes | Holder
_by_id = attrgetter("id")


class SecretCache:
    """The cache of one worker.

    Args:
        threads: run the polls.
        lookups: run the look-ups of strangers' keys and accounts, and nothing else.
        policies: kept current together with the secrets.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, lookups: ThreadPoolExecutor, policies: Policies
    ) -> None:
        self.clock = DatabaseClock()
        """The time by which secrets expire."""
        self.public_keys = PublicKeys()
        """Kept current together with the secrets."""
        self._threads = threads
        self._lookup_threads = lookups
        self._policies = policies
        self._secrets: dict[bytes, CachedSecret] = {}
        self._accounts: dict[Holder, list[CachedSecret]] = {}
        self._revoked: OrderedDict[UUID, None] = OrderedDict()
        self._unknown: OrderedDict[Key, float] = OrderedDict()
        self._lookups: dict[Key, asyncio.Task[None]] = {}
        self._position: Position | None = None
        self.refreshed_at: float | None = None
        """The end of the last poll, on the monotonic clock; None before the first."""
        self.misses = 0
        """The number of look-ups in the database."""

    def __len__(self) -> int:
        return len(self._secrets)

    def peek(self, key: bytes) -> CachedSecret | None:
        """Return the secret of a key, if it is cached."""
        return self._secrets.get(key_hash(key))

    async def find(self, key: bytes) -> CachedSecret | None:
        """Return the secret of a key, from the database if it is not cached.

        Concurrent calls for one key share one query. An unknown key is cached for
        `REMEMBER_UNKNOWN_SECONDS`.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is needed and unreachable.
            NoAnswerError: it has not answered within `LOOKUP_SECONDS`.
            ApiError: 503: `MAX_LOOKUPS` look-ups are running.
        """
        hashed = key_hash(key)
        await self._ensure(hashed, self._secrets, lambda: rows.by_hash(hashed))
        return self._secrets.get(hashed)

    def of(self, account_id: UUID) -> Sequence[CachedSecret]:
        """Return the cached secrets that an account's signature is checked against, newest first.

        They are not revoked; see `tried` for their number.
        """
        held = self._accounts.get(account_id)
        if held is None:
            return []
        return held if len(held) == 1 else tried(held[::-1])

    def given(self, account_id: UUID, platform: str) -> list[CachedSecret]:
        """Return the valid secrets that a platform made for an account, at most `MAX_GIVEN_TRIED`.

        The active ones, one of each shop, come first, so that replaced secrets of other shops
        displace none of them.
        """
        now = self.clock.now()
        held = self._accounts.get((account_id, platform), [])
        live = [secret for secret in reversed(held) if secret.is_valid(now)]
        live.sort(key=lambda secret: secret.state != "active")
        return live[:MAX_GIVEN_TRIED]

    async def look_again(self, account_id: UUID, platform: str = "") -> bool:
        """Load the secrets of an account after a signature that matches no cached one.

        The account, or its newest secret, may be new to this worker. Concurrent calls share one
        query, and there is at most one in `REMEMBER_UNKNOWN_SECONDS` for an account, whether it
        exists or not.

        Returns:
            Whether the database was queried.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is needed and unreachable.
            NoAnswerError: it has not answered within `LOOKUP_SECONDS`.
            ApiError: 503: `MAX_LOOKUPS` look-ups are running.
        """
        holder: Holder = (account_id, platform) if platform else account_id
        return await self._ensure(holder, {}, lambda: rows.newest_of(account_id, platform))

    def revoke(self, account_id: UUID, secret_ids: Iterable[UUID]) -> None:
        """Revoke the cached secrets that an event names, without a query.

        Ids that are not cached yet are remembered: a running query may have read them as live.

        Args:
            account_id: of their owner.
            secret_ids: ids of secrets and public keys.
        """
        holders: tuple[Holder, ...] = (account_id, *((account_id, name) for name in GIVEN_BY))
        for secret_id in secret_ids:
            self._revoked[secret_id] = None
            self.public_keys.revoke(secret_id)
            for holder in holders:
                held = self._held(holder, secret_id)
                if held is not None:
                    held.advance("revoked")
                    self._drop(held)
        while len(self._revoked) > MAX_REVOKED:
            self._revoked.popitem(last=False)

    def block(self, account_id: UUID) -> None:
        """Block an account that an event names, without a query."""
        self._policies.block(account_id)

    async def poll(self) -> None:
        """Load the changes since the last poll.

        The first poll loads everything, and so does a poll that another server answers, which may
        lack the last changes of the one before.
        """
        position, began = self._position, time.monotonic()
        found = None if position is None else await self._ask(lambda: rows.since(position))
        if position is None or found is None or not position.leads_to(found.position):
            await self._load()
        else:
            await self._put(found)
            self._position = found.position
        self._policies.settle(began)
        self.refreshed_at = time.monotonic()

    async def _load(self) -> None:
        begin = await self._ask(rows.here)
        for secret in self._secrets.values():
            secret.change = -1
        self._policies.replace(begin.policies)
        self.public_keys.keep({row.id for row in begin.public_keys})
        self._take_keys(begin.public_keys)
        after = UUID(int=0)
        while True:
            found = await self._ask(lambda: rows.page(after))  # noqa: B023 - awaited here
            await self._put(found)
            if len(found.secrets) < rows.PAGE:
                break
            after = found.secrets[-1].id
        for hashed, secret in list(self._secrets.items()):
            if secret.change < 0:
                self._drop(secret)
                del self._secrets[hashed]
        self._position = begin.position

    async def _ensure(
        self, key: Key, held: Mapping[Any, Any], question: Callable[[], Found]
    ) -> bool:
        if key in held or self._unknown.get(key, 0.0) > time.monotonic():
            return False
        lookup = self._lookups.get(key)
        if lookup is None:
            if len(self._lookups) >= MAX_LOOKUPS:
                raise overloaded()
            self.misses += 1
            lookup = asyncio.get_running_loop().create_task(self._look_up(key, question))
            self._lookups[key] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(key, None))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                await asyncio.shield(lookup)
        except TimeoutError:
            raise NoAnswerError(f"no answer within {LOOKUP_SECONDS} s") from None
        return True

    async def _look_up(self, key: Key, question: Callable[[], Found]) -> None:
        found = await self._ask(question, self._lookup_threads)
        await self._put(found)
        if not found.secrets or not isinstance(key, bytes):
            self._unknown[key] = time.monotonic() + REMEMBER_UNKNOWN_SECONDS
            while len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)

    async def _ask(
        self, question: Callable[[], Found], threads: ThreadPoolExecutor | None = None
    ) -> Found:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(threads or self._threads, question)
        self.clock.read(*found.reading)
        return found

    async def _put(self, found: Found) -> None:
        self._policies.put(found.policies)
        self._take_keys(found.public_keys)
        for begin in range(0, len(found.secrets), SLICE):
            if begin:
                await asyncio.sleep(0)
            for row in found.secrets[begin : begin + SLICE]:
                self._take(row)

    def _take_keys(self, public_keys: Iterable[Any]) -> None:
        for row in public_keys:
            self.public_keys.take(row, is_revoked=row.id in self._revoked)
            if row.state == "revoked":
                self._revoked.pop(row.id, None)
            else:
                self._unknown.pop(row.account_id, None)

    def _take(self, row: Any) -> None:
        hashed = bytes(row.key_hash)
        held = self._secrets.get(hashed)
        if held is not None:
            held.take(row)
        else:
            held = self._secrets[hashed] = CachedSecret(row)
            holder = _holder(held)
            insort(self._accounts.setdefault(holder, []), held, key=_by_id)
            self._unknown.pop(hashed, None)
            self._unknown.pop(holder, None)
        if row.state == "revoked":
            self._revoked.pop(held.id, None)
        elif held.id in self._revoked:
            held.advance("revoked")
        if held.state == "revoked":
            self._drop(held)

    def _held(self, holder: Holder, secret_id: UUID) -> CachedSecret | None:
        """Return the secret with this id, if it is cached and not revoked."""
        secrets = self._accounts.get(holder, [])
        at = bisect_left(secrets, secret_id, key=_by_id)
        return secrets[at] if at < len(secrets) and secrets[at].id == secret_id else None

    def _drop(self, secret: CachedSecret) -> None:
        """Remove a secret from those that signatures are checked against."""
        holder = _holder(secret)
        if self._held(holder, secret.id) is None:
            return
        secrets = self._accounts[holder]
        del secrets[bisect_left(secrets, secret.id, key=_by_id)]
        if not secrets:
            del self._accounts[holder]


def _holder(secret: CachedSecret) -> Holder:
    return (secret.account_id, secret.platform) if secret.platform else secret.account_id
