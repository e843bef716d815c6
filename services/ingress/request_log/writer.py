"""The request log of one worker: what became of each webhook request, written behind the requests.

A request leaves a row in memory. A task hands them, by the batch, to a thread that copies them into
PostgreSQL. What the database cannot take in time is dropped and counted: no request waits for the
log, and what was accepted is accepted without it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import UUID

import structlog
from falcon.asgi import Request

from services.ingress import metrics
from services.ingress.request_log import rows
from services.ingress.request_log.attempt import Attempt
from services.ingress.request_log.rows import SecretUse
from shared.db.session import is_database_away
from shared.http.callers import client_address
from shared.telemetry.metrics import kept
from shared.token_buckets import TokenBuckets

FLUSH_SECONDS = 0.5
USE_SECONDS = 2.0  # between two writings of how much each secret is used
UPKEEP_SECONDS, UPKEEP_RETRY_SECONDS = 3600.0, 60.0
STOP_SECONDS = 3.0
MAX_WAITING = 50_000  # rows, of some 400 bytes
BATCH = 10_000  # rows of one COPY
# Refusals are cheap to cause, so they may not fill the disk: of an account at first a hundred, then
# one a second; of all together fifty a second.
ACCOUNT_REFUSALS, ACCOUNT_REFUSALS_PER_SECOND = 100, 1
REFUSALS, REFUSALS_PER_SECOND = 2_000, 50

T = TypeVar("T")

log = structlog.get_logger()


class RequestLog:
    """Takes entries, and writes them until it is stopped."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="request log")
        self._rows: list[bytes] = []
        self._use: dict[UUID, SecretUse] = {}
        self._accounts = TokenBuckets(ACCOUNT_REFUSALS_PER_SECOND, ACCOUNT_REFUSALS)
        self._refusals = TokenBuckets(REFUSALS_PER_SECOND, REFUSALS)
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._use_due = self._upkeep_due = 0.0
        self._is_away = False

    def add(self, req: Request, attempt: Attempt, scheme: str, seconds: float) -> None:
        """Note a request that has its answer; nothing is waited for.

        Args:
            req: the request.
            attempt: what is known of it. One that belongs to nobody is not kept.
            scheme: how it is signed.
            seconds: from its start to its answer.
        """
        account_id = attempt.account_id
        if account_id is None:
            metrics.log_dropped.labels("nobody").inc()
            return
        if attempt.code != "accepted" and (
            self._accounts.take(account_id) or self._refusals.take(None)
        ):
            metrics.log_dropped.labels("many_refusals").inc()
            return
        ids = self._ids(attempt, account_id)
        if len(self._rows) >= MAX_WAITING:
            metrics.log_dropped.labels("full").inc()
            return
        # Made at once, in 2 us: of bytes the garbage collector keeps no account, and no body waits.
        latency = int(seconds * 1_000_000)
        row = rows.row(attempt, ids, scheme, latency, client_address(req))
        self._rows.append(row)

    def _ids(self, attempt: Attempt, account_id: UUID) -> str:
        """The columns of account and secret; the secret's use is counted on the way."""
        secret = attempt.secret
        if secret is None:
            return f"{account_id}\t{rows.NULL}"
        use = self._use.get(secret.id)
        if use is None:
            use = self._use[secret.id] = SecretUse(account_id, secret.id)
        if attempt.code == "accepted":
            use.accepted += 1
            use.last_used_at = attempt.at
        return use.ids

    def start(self) -> None:
        """Begin writing, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write what is left, if that can be done within `STOP_SECONDS`, and stop."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=STOP_SECONDS)
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        stopping = False
        while not stopping:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    stopping = await self._stopping.wait()
            except TimeoutError:
                pass
            await self._attempt(self._keep_partitions)
            await self._attempt(self._write_rows)
            if stopping or time.monotonic() >= self._use_due:
                await self._attempt(self._write_use)
            metrics.log_waiting.set(len(self._rows))

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except Exception as error:
            if not is_database_away(error):
                log.exception("request_log_failed", step=step.__name__)
            elif not self._is_away:
                # Once, and not twice a second until it is back.
                log.warning("request_log_waits", error=type(error).__name__)
                self._is_away = True

    async def _write_rows(self) -> None:
        while self._rows:
            batch = self._rows[:BATCH]
            try:
                left_out = await self._in_thread(rows.write, batch)
                metrics.log_rows.inc(len(batch) - left_out)
                metrics.log_dropped.labels("out_of_range").inc(left_out)
                self._is_away = False
            except Exception as error:
                if is_database_away(error):
                    raise  # the rows stay, and are written when it is back
                metrics.log_dropped.labels("failed").inc(len(batch))
                del self._rows[: len(batch)]
                raise
            del self._rows[: len(batch)]

    async def _write_use(self) -> None:
        use, self._use = self._use, {}
        self._use_due = time.monotonic() + USE_SECONDS
        used = {secret_id: found for secret_id, found in use.items() if found.accepted}
        try:
            if used:
                await self._in_thread(rows.write_use, used)
        except BaseException:
            for secret_id, newer in self._use.items():
                if secret_id in used:
                    newer.accepted += used.pop(secret_id).accepted
            self._use |= used
            raise

    async def _keep_partitions(self) -> None:
        if time.monotonic() >= self._upkeep_due:
            self._upkeep_due = time.monotonic() + UPKEEP_RETRY_SECONDS
            oldest = await self._in_thread(rows.keep_partitions)
            # Its days go whole: nobody has counted their rows.
            kept("request_log", 0, oldest)
            self._upkeep_due = time.monotonic() + UPKEEP_SECONDS

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        done = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        while not done.done():
            await asyncio.wait((done,), timeout=FLUSH_SECONDS)
            # A database that is silent shows here.
            metrics.log_waiting.set(len(self._rows))
        return done.result()
