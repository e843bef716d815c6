"""The request log of one worker, written in the background.

A request adds a row in memory. A task passes the rows in batches to a thread that copies them into
PostgreSQL. Rows that the database does not take in time are dropped and counted: no request waits
for the log, and a request is accepted without it.
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
from shared.db.request_log import ACCOUNT_REFUSALS
from shared.db.session import is_database_unavailable
from shared.http.callers import client_address
from shared.telemetry.metrics import kept
from shared.token_buckets import TokenBuckets

FLUSH_SECONDS = 0.5
USE_SECONDS = 2.0  # between two writes of the use of secrets
UPKEEP_SECONDS, UPKEEP_RETRY_SECONDS = 3600.0, 60.0
STOP_SECONDS = 3.0
MAX_WAITING = 50_000  # rows of about 400 bytes
BATCH = 10_000  # rows of one COPY
# Anyone can cause refusals, so they may not fill the disk: an account gets a burst, then one row a
# second; all accounts together fifty a second.
ACCOUNT_REFUSALS_PER_SECOND = 1
REFUSALS, REFUSALS_PER_SECOND = 2_000, 50

T = TypeVar("T")

log = structlog.get_logger()


class RequestLog:
    """Collects rows and writes them until it is stopped."""

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
        """Add the row of an answered request, without waiting.

        Args:
            req: the request.
            attempt: its record. A request of no known account is not kept.
            scheme: its signature scheme.
            seconds: from its arrival to its answer.
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
        # Formatted here, in 2 us: the garbage collector tracks no bytes, and the body is freed.
        latency = int(seconds * 1_000_000)
        row = rows.row(attempt, ids, scheme, latency, client_address(req))
        self._rows.append(row)

    def _ids(self, attempt: Attempt, account_id: UUID) -> str:
        """Return the columns of account and secret, and count the use of the secret."""
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
        """Start writing, in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Write the remaining rows, for at most `STOP_SECONDS`, and stop."""
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
            if not is_database_unavailable(error):
                log.exception("request_log_failed", step=step.__name__)
            elif not self._is_away:
                # Logged once, not twice a second until the database returns.
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
                if is_database_unavailable(error):
                    raise  # the rows stay, and are written when the database returns
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
            # Days are dropped as partitions, so their rows are not counted.
            kept("request_log", 0, oldest)
            self._upkeep_due = time.monotonic() + UPKEEP_SECONDS

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        done = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        while not done.done():
            await asyncio.wait((done,), timeout=FLUSH_SECONDS)
            # Updated while waiting, so that the metric shows a database that does not answer.
            metrics.log_waiting.set(len(self._rows))
        return done.result()
