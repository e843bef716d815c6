"""The relay: outbox to bus, with confirms; what was confirmed is deleted.

A row is locked while it is under way (`FOR UPDATE SKIP LOCKED`), so several relays share the work
and neither lose nor double anything. A relay that dies between confirm and commit leaves its rows,
and they are published again under the same message ids: consumers' inboxes know them.
"""

import asyncio
import select
import threading
import time
from collections.abc import Sequence
from typing import Any

import psycopg2
import structlog
from sqlalchemy import Connection, Row, create_engine, delete
from sqlalchemy import select as select_rows

from shared.bus.batch import held_by
from shared.bus.confirms import ConfirmTimeoutError, NackedError, ReturnedError
from shared.bus.message import Message
from shared.bus.traced import publisher_class
from shared.config import Settings
from shared.db.models import OutboxMessage
from shared.db.session import is_database_away
from shared.outbox import metrics
from shared.outbox.store import CHANNEL

BATCH = 1_000
LANES = 2  # while one waits for confirms, the other reads or deletes
POLL_SECONDS = 1.0  # behind NOTIFY, which a lost connection loses
AWAY_SECONDS = 0.5
# A row that no queue wants, or that the broker refuses, must not hold up those behind it.
POSTPONE_SECONDS = 30.0

log = structlog.get_logger()
_table = OutboxMessage.__table__


class Relay:
    """Publishes the outbox.

    Args:
        config: `amqp_url`, `database_url` and `amqp_heartbeat` count.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._engine = create_engine(
            config.database_url, pool_size=LANES, max_overflow=0, pool_pre_ping=True
        )
        self._publisher = publisher_class()(
            config.amqp_url,
            name="relay",
            max_outstanding=BATCH * LANES,
            confirm_timeout=10.0,
            heartbeat=config.amqp_heartbeat,
        )
        self.standing = self._publisher.standing
        self._postponed: dict[int, float] = {}
        self._written = asyncio.Event()
        self.last_turn = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping` is set; what is under way is finished first."""
        await self._publisher.start()
        loop = asyncio.get_running_loop()
        listening = threading.Event()
        listener = threading.Thread(
            target=_listen,
            args=(self._config.database_url, loop, self._written, listening),
            daemon=True,
        )
        listener.start()
        lanes = [asyncio.create_task(self._lane(stopping)) for _ in range(LANES)]
        await asyncio.gather(*lanes)
        listening.set()
        await self._publisher.stop()
        self._engine.dispose()

    async def _lane(self, stopping: asyncio.Event) -> None:
        quiet = False
        while not stopping.is_set():
            self.last_turn = time.monotonic()
            if self._publisher.state != "connected":
                await _wait(stopping, AWAY_SECONDS)
                continue
            self._written.clear()
            try:
                count = await self._batch()
                quiet = False
                self.standing.released()
            except Exception as error:  # noqa: BLE001 - the rows stay; nothing else may stop a relay
                if is_database_away(error):
                    self.standing.holding(held_by(error))
                if not quiet:
                    log.warning("relay_interrupted", error=f"{type(error).__name__}: {error}"[:300])
                    quiet = True
                await _wait(stopping, AWAY_SECONDS)
                continue
            if count < BATCH:
                await self._wait_for_more(stopping)

    async def _batch(self) -> int:
        """Relay one batch; returns how many rows were found."""
        connection = await asyncio.to_thread(self._engine.connect)
        try:
            rows = await asyncio.to_thread(_take, connection, self._skipped())
            if rows:
                confirmed = await self._publish(rows)
                await asyncio.to_thread(_remove, connection, confirmed)
                metrics.published.inc(len(confirmed))
        finally:
            await asyncio.to_thread(connection.close)
        return len(rows)

    async def _publish(self, rows: Sequence[Row[Any]]) -> list[int]:
        """Publish rows; returns the sequences of those that were confirmed.

        Raises:
            PublishError: the broker takes nothing at all, so that nothing is known to be done.
        """
        confirms = [(row.sequence, self._publisher.send(_message(row))) for row in rows]
        results = await asyncio.gather(
            *(confirm for _, confirm in confirms), return_exceptions=True
        )
        confirmed = []
        for (sequence, _), result in zip(confirms, results, strict=True):
            if result is None:
                confirmed.append(sequence)
                self._postponed.pop(sequence, None)
            elif isinstance(result, ReturnedError | NackedError | ConfirmTimeoutError):
                log.error("not_relayed", sequence=sequence, reason=str(result))
                self._postponed[sequence] = time.monotonic() + POSTPONE_SECONDS
                metrics.postponed.inc()
        return confirmed

    def _skipped(self) -> list[int]:
        now = time.monotonic()
        return [sequence for sequence, until in self._postponed.items() if until > now]

    async def _wait_for_more(self, stopping: asyncio.Event) -> None:
        waiters = [asyncio.create_task(self._written.wait()), asyncio.create_task(stopping.wait())]
        await asyncio.wait(waiters, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()


def _take(connection: Connection, skipped: list[int]) -> Sequence[Row[Any]]:
    query = (
        select_rows(_table)
        .order_by(_table.c.sequence)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    if skipped:
        query = query.where(_table.c.sequence.not_in(skipped))
    return connection.execute(query).all()


def _remove(connection: Connection, sequences: list[int]) -> None:
    if sequences:
        connection.execute(delete(OutboxMessage).where(_table.c.sequence.in_(sequences)))
    connection.commit()


def _message(row: Row[Any]) -> Message:
    return Message(
        exchange=row.exchange,
        routing_key=row.routing_key,
        type=row.type,
        message_id=str(row.message_id),
        body=bytes(row.body),
        correlation_id=row.correlation_id,
        time=row.time,
        source=row.source,
        traceparent=row.traceparent,
    )


def _listen(
    database_url: str,
    loop: asyncio.AbstractEventLoop,
    written: asyncio.Event,
    stopping: threading.Event,
) -> None:
    """Set `written` at each NOTIFY. When the connection is lost polling goes on without it."""
    dsn = database_url.replace("postgresql+psycopg2://", "postgresql://", 1)
    while not stopping.is_set():
        try:
            connection = psycopg2.connect(dsn, connect_timeout=5, application_name="relay-listen")
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            while not stopping.is_set():
                if select.select([connection], [], [], POLL_SECONDS)[0]:
                    connection.poll()
                    if connection.notifies:
                        connection.notifies.clear()
                        loop.call_soon_threadsafe(written.set)
        except (psycopg2.Error, OSError):
            stopping.wait(POLL_SECONDS)
        except RuntimeError:  # the loop is closed: the process stops
            return


async def _wait(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
