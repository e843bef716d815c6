"""Publishes a message with a confirm, or else writes it to the outbox.

A 201 means that the message was confirmed by a quorum queue, or is committed in PostgreSQL, from
where the relay publishes it later under the same id.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import structlog

from shared.bus import outbox
from shared.bus.contract.message import Message
from shared.bus.publish.confirms import OverloadedError, PublishError
from shared.bus.publish.publisher import Publisher
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import transaction
from shared.http.errors import overloaded, unavailable

TOTAL_SECONDS = 2.8  # until the sender is answered, in any case
LEAST_FALLBACK_SECONDS = 0.7
BATCH = 500
UNCERTAIN = (
    "It is not known whether the order was stored. Send it again shortly, with the same "
    "Idempotency-Key or webhook-id: then it counts once."
)

log = structlog.get_logger()


class Acceptor:
    """Stores the messages of one worker durably.

    Args:
        publisher: of the bus.
        threads: run the transactions of the fallback.
        max_waiting: how many messages may wait for the fallback at the same time.
    """

    def __init__(
        self, publisher: Publisher, threads: ThreadPoolExecutor, *, max_waiting: int
    ) -> None:
        self._publisher = publisher
        self._threads = threads
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Message, asyncio.Future[None]]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self.fallbacks = 0
        """The number of messages written to the outbox."""

    async def accept(self, message: Message) -> None:
        """Store a message; return once it is durable.

        Raises:
            ApiError: 503: neither bus nor database took it in time; it may be sent again.
        """
        started = time.monotonic()
        try:
            await self._publisher.send(message)
        except OverloadedError:
            raise overloaded() from None
        except PublishError as error:
            left = TOTAL_SECONDS - (time.monotonic() - started)
            await self._fall_back(message, max(left, LEAST_FALLBACK_SECONDS), error)

    async def _fall_back(self, message: Message, seconds: float, why: PublishError) -> None:
        if len(self._waiting) >= self._max_waiting:
            raise overloaded(UNCERTAIN)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())
        try:
            async with asyncio.timeout(seconds):
                await written
        except Exception as error:  # noqa: BLE001 - after any error the sender keeps the order
            log.warning("not_accepted", bus=type(why).__name__, database=type(error).__name__)
            # A confirm or a commit that is late may have stored it all the same.
            raise unavailable("unavailable", UNCERTAIN) from None
        self.fallbacks += 1

    async def _write(self) -> None:
        """Write waiting messages to the outbox, up to `BATCH` a transaction, until none is left."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch: list[tuple[Message, asyncio.Future[None]]] = []
            while self._waiting and len(batch) < BATCH:
                message, written = self._waiting.popleft()
                # A request that timed out was answered 503, so its sender sends it again.
                if not written.done():
                    batch.append((message, written))
            if not batch:
                continue
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._threads, _store, [m for m, _ in batch])
            except Exception as caught:  # noqa: BLE001 - raised in each waiting request
                error = caught
            for _, written in batch:
                if written.done():
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)


@within(ANSWER_SECONDS)
def _store(messages: list[Message]) -> None:
    with transaction() as session:
        outbox.add(session, messages)
