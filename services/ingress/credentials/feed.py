"""Keeps a worker's secret cache current: events of the bus, and a poll of the database.

An event revokes the secrets or blocks the account that it names, without a query, and wakes the
poll, which loads all other changes.
"""

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import msgspec
import structlog
from pika.adapters.asyncio_connection import AsyncioConnection

from services.ingress.credentials.cache import SecretCache
from shared import gc_tuning
from shared.bus.broker.pika_connection import Link, call, open_channel
from shared.bus.contract import topology
from shared.bus.contract.events import AccountChanged
from shared.db.session import is_database_unavailable
from shared.ids import new_id

# Events arrive in bursts: one poll loads the changes of all.
GATHER_SECONDS = 0.005

log = structlog.get_logger()


class _AboutSecrets(msgspec.Struct):
    """The fields of several events: `secret_ids` of a revocation, `revoked_ids` of a rotation,
    `what` of a change of the account."""

    account_id: UUID
    secret_ids: tuple[UUID, ...] = ()
    revoked_ids: tuple[UUID, ...] = ()
    what: str = ""


class SecretFeed:
    """Keeps one cache current.

    Args:
        cache: the cache.
        amqp_url: of the broker.
        heartbeat: of the connection, in seconds.
        poll_seconds: between two polls; bounds how stale the cache is while the bus is unreachable.
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
        self._decoder = msgspec.json.Decoder(_AboutSecrets)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_listening = False

    async def start(self) -> None:
        """Start loading, listening and polling, in the background."""
        self._link.start()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._poll())

    async def stop(self) -> None:
        """Stop polling and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._link.stop()

    async def _subscribe(self, connection: AsyncioConnection) -> None:
        channel = await open_channel(connection)
        channel.add_on_close_callback(lambda _, reason: self._consumer_lost(reason))
        channel.add_on_cancel_callback(
            lambda _: self._consumer_lost(ConnectionError("the broker cancelled the consumer"))
        )
        queue = f"ingress.secrets.{new_id()}"
        await call(channel.queue_declare, queue=queue, exclusive=True, auto_delete=True)
        for key in topology.FEED_KEYS:
            await call(channel.queue_bind, queue=queue, exchange=topology.EVENTS, routing_key=key)
        await call(
            channel.basic_consume, queue=queue, on_message_callback=self._on_event, auto_ack=True
        )
        self.is_listening = True

    def _lost(self, _: str) -> None:
        self.is_listening = False

    def _consumer_lost(self, reason: BaseException) -> None:
        # Queue or channel was closed. Without a reset the connection would stay open without one.
        self.is_listening = False
        self._link.reset(reason)

    def _on_event(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        key = method.routing_key
        if method.exchange != topology.EVENTS or not any(
            topology.matches(pattern, key) for pattern in topology.FEED_KEYS
        ):
            return  # routed here by CC or BCC headers, which a broker may not check
        with contextlib.suppress(msgspec.DecodeError):
            event = self._decoder.decode(body)
            self._cache.revoke(event.account_id, event.secret_ids + event.revoked_ids)
            if key == AccountChanged.TYPE and event.what == "blocked":
                self._cache.block(event.account_id)
        self._wake.set()

    async def _poll(self) -> None:
        is_loaded = False
        while True:
            self._wake.clear()
            try:
                await self._cache.poll()
            except Exception as error:  # noqa: BLE001 - readiness reports the age of the cache
                log.warning("secret_poll_failed", error=type(error).__name__)
                if not is_database_unavailable(error):
                    self.standing.failing(error)
                await asyncio.sleep(self._poll_seconds)
                continue
            if self.standing.status.state == "failing":
                self.standing.released()
            if not is_loaded:
                is_loaded = True
                gc_tuning.freeze()
                log.info("secrets_loaded", count=len(self._cache))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._wake.wait()
                await asyncio.sleep(GATHER_SECONDS)
