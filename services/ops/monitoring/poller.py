"""Polls the servers once for all browsers, which show the same figures.

It takes snapshots often while a browser watches, and seldom otherwise, to spare the broker, and
keeps those of the last hour. A snapshot that does not finish is noticed: the newest one gets old.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.ops.monitoring import metrics
from services.ops.monitoring.alerts import SNAPSHOT_IS_OLD as OLD
from services.ops.monitoring.alerts import Trouble, too_old
from services.ops.monitoring.queue_stats import Sample
from services.ops.monitoring.snapshot import Snapshot

WATCHED_SECONDS, UNWATCHED_SECONDS = 2.0, 12.0
GONE_SECONDS = 10.0
"""Seconds without a request after which no browser is watching."""
TURN_SECONDS = 0.2
SOON = 0.15
"""Seconds that a page waits before its servers are probed."""
PROBE_SECONDS, PROBED_SECONDS = 0.7, 0.05
"""The timeout of a probe, and how long a good answer stays valid."""
HUNG = f"It has not answered for {PROBE_SECONDS:g} s."
REMEMBERED_EVERY = 10.0
REMEMBERED = 360

log = structlog.get_logger()


class Probe:
    """Checks whether a server answers while a page waits: the next snapshot may be seconds away.

    Args:
        name: the server's.
        ask: a cheap request; blocking, called in a thread, one call at a time.

    Attributes:
        hung_at: when a probe timed out, by the monotonic clock; -inf once the server has answered.
    """

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"probe {name}")
        self._asked: asyncio.Future[object] | None = None
        self._asked_at = self.hung_at = float("-inf")

    def ask(self) -> asyncio.Future[object]:
        """Start a probe, unless one is under way or recent."""
        asked, now = self._asked, time.monotonic()
        if asked is None or (asked.done() and now - self._asked_at > PROBED_SECONDS):
            loop = asyncio.get_running_loop()
            asked = self._asked = loop.run_in_executor(self._thread, self._ask)
            asked.add_done_callback(self._has_answered)
            self._asked_at = now
        return asked

    async def is_hung(self) -> bool:
        """Whether the probe timed out. An error is an answer: pages get the same."""
        asked, began = self.ask(), time.monotonic()
        patience = max(0.0, self._asked_at + PROBE_SECONDS - began)
        await asyncio.wait([asked], timeout=patience)
        late = time.monotonic() - began - patience
        # A stalled event loop cannot tell its own delay from the server's.
        if asked.done() or late > PROBE_SECONDS / 4:
            return False
        self.hung_at = time.monotonic()
        return True

    def stop(self) -> None:
        """Stop probing."""
        self._thread.shutdown(wait=False)

    def _has_answered(self, asked: asyncio.Future[object]) -> None:
        # In the loop, so that no caller finds it hung afterwards. The next snapshot reports errors.
        if not asked.cancelled() and asked.exception() is None:
            self.hung_at = float("-inf")


class SnapshotPoller:
    """Takes snapshots from `start` to `stop`.

    Args:
        collect: takes a snapshot; blocking, called in a thread, one call at a time.
        ask_database: a cheap request to the database; blocking likewise.
        ask_broker: the same for the broker.
    """

    def __init__(
        self,
        collect: Callable[[], Snapshot],
        ask_database: Callable[[], object] = int,
        ask_broker: Callable[[], object] = int,
    ) -> None:
        self._latest: Snapshot | None = None
        self._began = float("-inf")
        """When the newest snapshot was begun, by the monotonic clock."""
        self._database = Probe("database", ask_database)
        self._broker = Probe("broker", ask_broker)
        self._at_broker: list[int] = []
        """Ids of the threads that wait for the broker."""
        self.hour: deque[Snapshot] = deque(maxlen=REMEMBERED)
        """Snapshots of the last hour, one every `REMEMBERED_EVERY` seconds, the oldest first."""
        self._collect = collect
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="poller")
        self._new = asyncio.Condition()
        self._watched_at = 0.0
        self._running: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot, with the troubles found by probes since; None before the first."""
        snapshot = self._latest
        if snapshot is None:
            return snapshot
        old = too_old(snapshot.at, datetime.now(UTC))
        known = {trouble.key for trouble in snapshot.troubles}
        hung = [
            Trouble("down", server, f"The {server} does not answer: {HUNG}", "away")
            for server, probe in (("broker", self._broker), ("database", self._database))
            if self._is_hung(probe) and f"{server}: away" not in known
        ]
        new = [*([old] if old else []), *hung]
        return replace(snapshot, troubles=[*new, *snapshot.troubles]) if new else snapshot

    @property
    def is_database_unavailable(self) -> bool:
        """Whether the newest snapshot or a later probe found it unresponsive.

        Reading it makes the next snapshot come soon.
        """
        sample = self._seen()
        if self._is_hung(self._database):
            return True
        return sample is not None and not sample.has_database

    @property
    def broker_error(self) -> str | None:
        """Why the broker is unresponsive, likewise; None while it answers."""
        sample = self._seen()
        if self._is_hung(self._broker):
            return HUNG
        return None if sample is None or sample.is_refused else sample.broker_error

    @property
    def broker_alarm(self) -> str | None:
        """Why the broker takes no messages, by the newest snapshot; None while it does."""
        sample = self._seen()
        return None if sample is None else sample.alarm

    async def finds_hung(self, thread: int | None = None) -> bool:
        """Whether a server that a page waits for is unresponsive.

        Args:
            thread: the page's thread. None: it has none yet, perhaps because others wait for the
                broker in all of them.
        """
        at_broker = self._at_broker if thread is None else thread in self._at_broker
        probes = [self._database, *([self._broker] if at_broker else [])]
        return any(await asyncio.gather(*(probe.is_hung() for probe in probes)))

    @contextlib.contextmanager
    def at_broker(self) -> Iterator[None]:
        """Mark this thread as waiting for the broker."""
        thread = threading.get_ident()
        self._at_broker.append(thread)
        try:
            yield
        finally:
            self._at_broker.remove(thread)

    def _is_hung(self, probe: Probe) -> bool:
        """Whether a probe timed out since the newest snapshot began, and within `OLD`."""
        return probe.hung_at > max(self._began, time.monotonic() - OLD.total_seconds())

    def _seen(self) -> Sample | None:
        """The newest sample, unless it is too old."""
        self.hasten()
        snapshot = self._latest
        is_old = snapshot is None or too_old(snapshot.at, datetime.now(UTC)) is not None
        return None if snapshot is None or is_old else snapshot.sample

    def start(self) -> None:
        """Start polling; called in the event loop."""
        self._running = asyncio.get_running_loop().create_task(self._run())
        # The first connection takes longest, and is made before a page needs it.
        self._database.ask()

    async def stop(self) -> None:
        """Stop polling, and end all streams of `watch`."""
        self._stopping = True
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        async with self._new:
            self._new.notify_all()
        self._thread.shutdown(wait=False)
        self._database.stop()
        self._broker.stop()

    def hasten(self) -> None:
        """Take the next snapshot soon: a browser is watching."""
        self._watched_at = time.monotonic()

    async def watch(self) -> AsyncIterator[Snapshot]:
        """Yield every snapshot from the newest on; a slow reader misses some."""
        seen: Snapshot | None = None
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
                self._latest = await loop.run_in_executor(self._thread, self._collect)
                self._began = started
            except Exception:
                log.exception("no_look")
            else:
                metrics.snapshot_taken(self._latest.at)
                self._remember(self._latest)
                async with self._new:
                    self._new.notify_all()
            await self._pause(started)

    async def _pause(self, started: float) -> None:
        """Sleep until the next snapshot is due, which is sooner while a browser watches."""
        while True:
            now = time.monotonic()
            is_watched = now - self._watched_at < GONE_SECONDS
            if now - started >= (WATCHED_SECONDS if is_watched else UNWATCHED_SECONDS):
                return
            await asyncio.sleep(TURN_SECONDS)

    def _remember(self, snapshot: Snapshot) -> None:
        if not self.hour or (snapshot.at - self.hour[-1].at).total_seconds() >= REMEMBERED_EVERY:
            self.hour.append(snapshot)
