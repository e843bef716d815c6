"""Making a message safe before the sender is told so: the bus, or else the outbox.

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
from shared.http.errors import unavailable

TOTAL_SECONDS = 2.8  # after which the sender has its answer, whatever it is
LEAST_FALLBACK_SECONDS = 0.7
BATCH = 500
UNCERTAIN = (
    "It is not known whether the order was stored. Send it again shortly, with the same "
    "Idempotency-Key or webhook-id: then it counts once."
)

log = structlog.get_logger()


class Acceptor:
    """Accepts messages for one worker.

    Args:
        publisher: to the bus.
        threads: where the fallback's transactions run.
        max_waiting: how many may wait for the fallback at once.
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
        """How many messages went to the outbox."""

    async def accept(self, message: Message) -> None:
        """Return when the message is safe.

        Raises:
            ApiError: 503, when it could be put nowhere in time; it may be sent again.
        """
        started = time.monotonic()
        try:
            await self._publisher.send(message)
        except OverloadedError:
            raise unavailable("overloaded", "Too much at once. Try again shortly.", 1) from None
        except PublishError as error:
            left = TOTAL_SECONDS - (time.monotonic() - started)
            await self._fall_back(message, max(left, LEAST_FALLBACK_SECONDS), error)

    async def _fall_back(self, message: Message, seconds: float, why: PublishError) -> None:
        if len(self._waiting) >= self._max_waiting:
            raise unavailable("overloaded", UNCERTAIN, 1)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write())
        try:
            async with asyncio.timeout(seconds):
                await written
        except Exception as error:  # noqa: BLE001 - whatever it was, the sender keeps the order
            log.warning("not_accepted", bus=type(why).__name__, database=type(error).__name__)
            # A confirm or a commit that came too late may have stored it all the same.
            raise unavailable("unavailable", UNCERTAIN) from None
        self.fallbacks += 1

    async def _write(self) -> None:
        """Write what waits, many messages a transaction, until nothing does."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch: list[tuple[Message, asyncio.Future[None]]] = []
            while self._waiting and len(batch) < BATCH:
                message, written = self._waiting.popleft()
                # Whoever gave up was told 503; storing it now would be news to nobody.
                if not written.done():
                    batch.append((message, written))
            if not batch:
                continue
            error: Exception | None = None
            try:
                await loop.run_in_executor(self._threads, _store, [m for m, _ in batch])
            except Exception as caught:  # noqa: BLE001 - each waiter is told
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
