"""What keeps a worker's secret cache true: the events it listens to, and the poll behind them."""

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import msgspec
import structlog
from pika.adapters.asyncio_connection import AsyncioConnection

from services.ingress.secret_cache import SecretCache
from shared import heap
from shared.bus import topology
from shared.bus.link import Link, call, open_channel
from shared.ids import new_id

RETRY_SECONDS = 1.0

log = structlog.get_logger()


class _AboutAccount(msgspec.Struct):
    """All that a `secret.*` event must say here."""

    account_id: UUID


class SecretFeed:
    """Feeds one cache.

    Args:
        cache: what to keep true.
        amqp_url: where the events are.
        heartbeat: seconds.
        poll_seconds: between two looks into the database; bounds how stale the cache can be while
            the bus is away.
    """

    def __init__(
        self, cache: SecretCache, amqp_url: str, *, heartbeat: int, poll_seconds: float
    ) -> None:
        self._cache = cache
        self._poll_seconds = poll_seconds
        self._link = Link(
            amqp_url,
            name="ingress secret cache",
            heartbeat=heartbeat,
            setup=self._subscribe,
            on_lost=self._lost,
        )
        self.standing = self._link.standing
        self._decoder = msgspec.json.Decoder(_AboutAccount)
        self._pending: set[UUID] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_listening = False

    async def start(self) -> None:
        """Begin warming up, listening and polling, in the background."""
        self._link.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._poll()), loop.create_task(self._refresh())]

    async def stop(self) -> None:
        """Stop all of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.stop()

    async def _subscribe(self, connection: AsyncioConnection) -> None:
        channel = await open_channel(connection)
        queue = f"ingress.secrets.{new_id()}"
        await call(channel.queue_declare, queue=queue, exclusive=True, auto_delete=True)
        await call(
            channel.queue_bind, queue=queue, exchange=topology.EVENTS, routing_key="secret.#"
        )
        await call(
            channel.basic_consume, queue=queue, on_message_callback=self._on_event, auto_ack=True
        )
        self.is_listening = True

    def _lost(self, _: str) -> None:
        self.is_listening = False

    def _on_event(self, _: Any, __: Any, ___: Any, body: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            self._pending.add(self._decoder.decode(body).account_id)
            self._wake.set()

    async def _refresh(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            accounts, self._pending = self._pending, set()
            try:
                await self._cache.refresh(accounts)
            except Exception as error:  # noqa: BLE001 - the poll catches up
                log.warning("secret_refresh_failed", error=type(error).__name__)

    async def _poll(self) -> None:
        while True:
            try:
                if self._cache.refreshed_at is None:
                    await self._cache.warm()
                    heap.freeze()
                    log.info("secrets_loaded", count=len(self._cache))
                else:
                    await self._cache.poll()
            except Exception as error:  # noqa: BLE001 - the database is away; readiness tells
                log.warning("secret_poll_failed", error=type(error).__name__)
            await asyncio.sleep(self._poll_seconds)
