"""Polls the servers once for all browsers, which are shown the same figures.

It looks often while somebody watches, and seldom otherwise, so that the broker is not kept busy by
being looked at; and it remembers an hour. A look that does not end is seen: the last one gets old.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.ops.monitoring import metrics
from services.ops.monitoring.alerts import LOOK_IS_OLD as OLD
from services.ops.monitoring.alerts import too_old
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.snapshot import Look

WATCHED_SECONDS, UNWATCHED_SECONDS = 2.0, 12.0
GONE_SECONDS = 10.0
"""Nobody watches any more when nobody has asked for so long."""
TURN_SECONDS = 0.2
REMEMBERED_EVERY = 10.0
REMEMBERED = 360

log = structlog.get_logger()


class Lookout:
    """Looks for as long as it runs.

    Args:
        look: blocking, and called in a thread of its own, one call at a time.
    """

    def __init__(self, look: Callable[[], Look]) -> None:
        self._latest: Look | None = None
        self.hour: deque[Look] = deque(maxlen=REMEMBERED)
        """Of the last hour, one about every `REMEMBERED_EVERY` seconds, the oldest first."""
        self._look = look
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookout")
        self._new = asyncio.Condition()
        self._watched_at = 0.0
        self._running: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def latest(self) -> Look | None:
        """The newest; None before the first. One that is old says so, first of all."""
        look = self._latest
        if look is None or (old := too_old(look.at, datetime.now(UTC))) is None:
            return look
        return replace(look, troubles=[old, *look.troubles])

    @property
    def is_database_away(self) -> bool:
        """Whether the newest look says that the database does not answer; the next comes soon."""
        sample = self._seen()
        return sample is not None and not sample.has_database

    @property
    def broker_error(self) -> str | None:
        """Why the broker does not answer, by the newest look; the next comes soon."""
        sample = self._seen()
        return None if sample is None or sample.is_refused else sample.broker_error

    @property
    def broker_alarm(self) -> str | None:
        """Why the broker takes no messages, by the newest look; None while it does."""
        sample = self._seen()
        return None if sample is None else sample.alarm

    def _seen(self) -> Sample | None:
        """The newest sample that says what is so now."""
        self.hasten()
        look = self._latest
        is_old = look is None or too_old(look.at, datetime.now(UTC)) is not None
        return None if look is None or is_old else look.sample

    def start(self) -> None:
        """Begin; called in the loop."""
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, and end all who watch."""
        self._stopping = True
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        async with self._new:
            self._new.notify_all()
        self._thread.shutdown(wait=False)

    def hasten(self) -> None:
        """Look again soon: somebody has come."""
        self._watched_at = time.monotonic()

    async def watch(self) -> AsyncIterator[Look]:
        """Every look from now on, the newest first; a slow reader misses some."""
        seen: Look | None = None
        while not self._stopping:
            self.hasten()
            if self._latest is None or self._latest is seen:
                async with self._new:
                    try:
                        async with asyncio.timeout(OLD.total_seconds()):
                            await self._new.wait()
                    except TimeoutError:
                        seen = None
                continue
            seen = self._latest
            if (latest := self.latest) is not None:
                yield latest

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = time.monotonic()
            try:
                self._latest = await loop.run_in_executor(self._thread, self._look)
            except Exception:
                log.exception("no_look")
            else:
                metrics.looked(self._latest.at)
                self._remember(self._latest)
                async with self._new:
                    self._new.notify_all()
            await self._pause(started)

    async def _pause(self, started: float) -> None:
        """Until the next is due, which is sooner once somebody watches."""
        while True:
            now = time.monotonic()
            is_watched = now - self._watched_at < GONE_SECONDS
            if now - started >= (WATCHED_SECONDS if is_watched else UNWATCHED_SECONDS):
                return
            await asyncio.sleep(TURN_SECONDS)

    def _remember(self, look: Look) -> None:
        if not self.hour or (look.at - self.hour[-1].at).total_seconds() >= REMEMBERED_EVERY:
            self.hour.append(look)
