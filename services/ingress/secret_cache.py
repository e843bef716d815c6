"""Every live webhook secret in memory, so that checking a request needs no database.

Found by the SHA-256 of the key. What a sender presents is itself the key of its signature, so
nothing is ever decrypted here. Three ways keep it true: `secret.*` events within milliseconds, a
poll of what changed lately behind that, and a look into the database for a key never seen.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, or_, select

from shared.db.models import WebhookSecret
from shared.db.session import engine
from shared.webhook_keys import key_hash

REMEMBER_EXPIRED = timedelta(days=30)
REMEMBER_UNKNOWN_SECONDS = 5.0
MAX_UNKNOWN = 10_000
# A transaction may commit a change some time after the trigger stamped it.
POLL_OVERLAP = timedelta(seconds=30)

log = structlog.get_logger()
_columns = (
    WebhookSecret.key_hash,
    WebhookSecret.id,
    WebhookSecret.account_id,
    WebhookSecret.state,
    WebhookSecret.expires_at,
    WebhookSecret.updated_at,
)


class CachedSecret:
    """One secret. Slots, since there may be a hundred thousand.

    Attributes:
        id: the secret's id.
        account_id: whose it is.
        state: `active`, `retiring`, `expired` or `revoked`.
        expires_at: the end of validity, in seconds since 1970.
        changed_at: when the database last changed it, in seconds since 1970.
    """

    __slots__ = ("account_id", "changed_at", "expires_at", "id", "state")

    def __init__(
        self, id_: UUID, account_id: UUID, state: str, expires_at: float, changed_at: float
    ) -> None:
        self.id = id_
        self.account_id = account_id
        self.state = state
        self.expires_at = expires_at
        self.changed_at = changed_at

    def is_valid(self, now: float) -> bool:
        """Whether it may be signed with at `now` (seconds since 1970)."""
        return now < self.expires_at and self.state in ("active", "retiring")

    def is_expired(self, now: float) -> bool:
        """Whether it once was good and its time is over, also if nobody has marked it yet."""
        return self.state == "expired" or (
            self.state in ("active", "retiring") and now >= self.expires_at
        )


class SecretCache:
    """The cache of one worker.

    Args:
        threads: where database queries run.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._secrets: dict[bytes, CachedSecret] = {}
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._lookups: dict[bytes, asyncio.Task[CachedSecret | None]] = {}
        self._seen_until = datetime.now(UTC)
        self.refreshed_at: float | None = None
        """When it last agreed with the database, on the monotonic clock; None before the start."""
        self.misses = 0
        """How many keys were looked up in the database."""

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
        found = self._secrets.get(hashed)
        if found is not None:
            return found
        until = self._unknown.get(hashed)
        if until is not None and until > time.monotonic():
            return None
        lookup = self._lookups.get(hashed)
        if lookup is None:
            self.misses += 1
            lookup = asyncio.get_running_loop().create_task(self._look_up(hashed))
            self._lookups[hashed] = lookup
            lookup.add_done_callback(lambda _: self._lookups.pop(hashed, None))
        return await asyncio.shield(lookup)

    async def warm(self) -> None:
        """Load every secret that a request may still be signed with, or be told about."""
        remembered = datetime.now(UTC) - REMEMBER_EXPIRED
        live = or_(
            WebhookSecret.state.in_(("active", "retiring")), WebhookSecret.expires_at > remembered
        )
        self._put(await self._query(live))
        self.refreshed_at = time.monotonic()

    async def poll(self) -> None:
        """Load what has changed since the last time."""
        changed = WebhookSecret.updated_at > self._seen_until - POLL_OVERLAP
        self._put(await self._query(changed))
        self.refreshed_at = time.monotonic()

    async def refresh(self, accounts: Iterable[UUID]) -> None:
        """Load the secrets of some accounts anew."""
        theirs = WebhookSecret.account_id.in_(list(accounts))
        self._put(await self._query(theirs))

    async def _look_up(self, hashed: bytes) -> CachedSecret | None:
        rows = await self._query(WebhookSecret.key_hash == hashed)
        self._put(rows)
        if not rows:
            self._unknown[hashed] = time.monotonic() + REMEMBER_UNKNOWN_SECONDS
            while len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)
        return self._secrets.get(hashed)

    async def _query(self, condition: ColumnElement[bool]) -> Sequence[Any]:
        def run() -> Sequence[Any]:
            with engine().connect() as connection:
                return connection.execute(select(*_columns).where(condition)).all()

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    def _put(self, rows: Iterable[Any]) -> None:
        for row in rows:
            hashed = bytes(row.key_hash)
            changed_at = row.updated_at.timestamp()
            held = self._secrets.get(hashed)
            # Of two queries under way the older may answer last.
            if held is None or held.changed_at <= changed_at:
                self._secrets[hashed] = CachedSecret(
                    row.id, row.account_id, row.state, row.expires_at.timestamp(), changed_at
                )
            self._unknown.pop(hashed, None)
            self._seen_until = max(self._seen_until, row.updated_at)
