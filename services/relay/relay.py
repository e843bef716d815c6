"""The relay: outbox to bus, with confirms; what was confirmed is deleted.

A row is locked while it is under way (`FOR UPDATE SKIP LOCKED`), so several relays share the work
and neither lose nor double anything. A relay that dies between confirm and commit leaves its rows,
and they are published again under the same message ids: consumers' inboxes know them.

An error belongs to its row, and a destination's silence to the destination:

* A row goes out at full speed once the broker is known to take its like (vetting.py). What it does
  not take, or returns, is parked in its own row with the reason, and tried again ever later.
* What is sent at full speed and not confirmed is in doubt. It is never sent at full speed again,
  but once more with care (careful.py): no row is sent a third time unless a connection is lost.
* Nobody's confirm waits for the journal's.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, Row, event, text

from services.relay import metrics, rows
from services.relay.careful import Careful
from services.relay.reached import Reached
from services.relay.rehearsal import CannotTryError
from services.relay.rows import Outcome
from services.relay.vetting import Vetting, kind_of
from shared.bus.broker.standing import Standing
from shared.bus.consume.batch import held_by
from shared.bus.outbox import CHANNEL
from shared.bus.publish.confirms import NackedError, PublishError, ReturnedError
from shared.bus.publish.publisher import UNHURRIED, Publisher
from shared.bus.publish.traced import publisher_class
from shared.config.settings import Settings
from shared.db.listening import Listener
from shared.db.session import is_database_away, make_engine

BATCH = 1_000
LANES = 2  # while one waits for confirms, the other reads or deletes
POLL_SECONDS = 1.0  # behind NOTIFY, which a lost connection loses
AWAY_SECONDS = 0.5
PATIENCE, MOST_PATIENCE = 5.0, 8.0
"""Seconds until what is not confirmed is in doubt: more where the broker was seen to be slow."""
IDLE_SECONDS = 120.0
"""Until the rows of a relay that is frozen are others' to send: it waits for the broker with them,
which may take a while to say what it would take (rehearsal.py)."""

log = structlog.get_logger()


class Relay:
    """Publishes the outbox.

    Args:
        config: `amqp_url`, `database_url` and `amqp_heartbeat` count.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._engine = make_engine(
            config,
            pool_size=LANES + 1,
            idle_seconds=IDLE_SECONDS,
            # Each statement here is for some rows in the order of an index. The table is empty
            # whenever it is analysed, so the planner would sort all that waits for each batch.
            options="-c enable_sort=off -c enable_seqscan=off",
        )
        self._vetting = Vetting(config.amqp_url)
        self._fast = self._publisher("relay")
        self._careful = Careful(self._engine, self._publisher, self._vetting, PATIENCE)
        self._troubles = _Troubles(lambda: self._fast.standing)
        self._careful_troubles = _Troubles(lambda: self._careful.standing)
        self._reached = Reached()
        # Of another server, perhaps, which begins to count where it was promoted.
        event.listen(self._engine, "connect", lambda *_: self._reached.change_server())
        self._abandoned: set[asyncio.Task[None]] = set()
        self._written = asyncio.Event()
        self._stopping = asyncio.Event()
        self.last_turn = time.monotonic()

    @property
    def standings(self) -> Sequence[Standing]:
        """How it stands at full speed and with care, by the connections of the moment."""
        return self._fast.standing, self._careful.standing

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping` is set; what is under way is finished first."""
        await self._fast.start()
        await self._careful.start()
        loop = asyncio.get_running_loop()
        listening = threading.Event()
        listener = threading.Thread(
            target=_listen,
            args=(self._config.database_url, loop, self._wake, listening),
            daemon=True,
        )
        listener.start()
        self._stopping = stopping
        lanes = [asyncio.create_task(self._lane(number, stopping)) for number in range(LANES)]
        careful = asyncio.create_task(self._careful_lane(stopping))
        await asyncio.gather(*lanes, careful)
        listening.set()
        await self._fast.stop(0)  # its lanes have waited
        try:
            await self._careful.stop()
        except Exception as error:  # noqa: BLE001 - their lease ends by itself
            log.warning("left_in_doubt", error=f"{type(error).__name__}: {error}"[:300])
        await asyncio.gather(*self._abandoned, self._vetting.close(), return_exceptions=True)
        self._engine.dispose()

    def _publisher(self, name: str) -> Publisher:
        return publisher_class()(
            self._config.amqp_url,
            name=name,
            max_outstanding=BATCH * LANES,
            confirm_timeout=UNHURRIED,
            heartbeat=self._config.amqp_heartbeat,
            waits_for_journal=False,
            missing=self._vetting.missing,
        )

    def _wake(self) -> None:
        self._written.set()
        self._careful.wake.set()

    async def _lane(self, number: int, stopping: asyncio.Event) -> None:
        """Publish what is fresh, at full speed."""
        # While there is much, each batch begins where the last ended.
        after, looked, is_begun = 0, 0.0, False
        while not stopping.is_set():
            now = self.last_turn = time.monotonic()
            if self._fast.state != "connected":
                await _wait(stopping, AWAY_SECONDS)
                continue
            self._written.clear()
            is_thorough = self._reached.is_thorough(now)
            if is_thorough or not is_begun or now - looked > POLL_SECONDS:
                first = self._reached.after(now, self._careful.stuck, is_thorough=is_thorough)
                after, looked = min(after, first) if is_begun else first, now
            try:
                count, last = await self._batch(after, is_thorough=is_thorough)
                self._troubles.over(number)
            except Exception as error:  # noqa: BLE001 - the rows stay; nothing else may stop a relay
                self._troubles.met(number, error)
                self._reached.forget()
                is_begun = False
                await _wait(stopping, AWAY_SECONDS)
                continue
            if count == BATCH:
                after, is_begun = last, True
            elif is_begun:
                is_begun = False
            else:
                await _first_of(self._written, stopping, POLL_SECONDS)

    async def _careful_lane(self, stopping: asyncio.Event) -> None:
        """Publish what is in doubt, or was parked, with care."""
        while not stopping.is_set():
            self._careful.wake.clear()
            try:
                goes_on = await self._careful.turn()
                self._careful_troubles.over(0)
            except Exception as error:  # noqa: BLE001 - as above
                self._careful_troubles.met(0, error)
                goes_on = await _wait(stopping, AWAY_SECONDS)
            if not goes_on:
                await _first_of(self._careful.wake, stopping, POLL_SECONDS)
        self._careful.cease()

    async def _batch(self, after: int, *, is_thorough: bool) -> tuple[int, int]:
        """Relay one batch; returns how many rows were found, and the last one's sequence."""
        connection = await asyncio.to_thread(self._engine.connect)
        try:
            stuck, look = self._careful.stuck, None
            if is_thorough:
                look = self._reached.begin(*await asyncio.to_thread(rows.writers, connection))
            began = time.monotonic()
            found = await asyncio.to_thread(rows.take_fresh, connection, after, stuck, BATCH)
            took = time.monotonic() - began
            count, last = len(found), found[-1].sequence if found else 0
            if found:
                outcome = await self._publish(connection, found)
                await asyncio.to_thread(rows.settle, connection, outcome)
                if outcome.no_longer_fresh == count:
                    self._reached.note(time.monotonic(), last)
                else:
                    self._reached.forget()
                if outcome.doubtful or outcome.deferred:
                    self._careful.wake.set()
                rows.tell_parked(found, outcome)
                metrics.count(outcome)
            if look is not None:
                self._reached.end(look, time.monotonic(), took, last if count == BATCH else None)
        finally:
            await asyncio.to_thread(connection.close)
        return count, last

    async def _publish(self, connection: Connection, found: Sequence[Row[Any]]) -> Outcome:
        """Publish rows; returns what became of them.

        Raises:
            PublishError: the broker takes nothing at all, so that nothing is known to be done.
        """
        fast, outcome = self._fast, Outcome()
        sent: list[_Sent] = []
        unknown = []
        passes = self._vetting.passes
        try:
            for row in found:
                body = row[-1]
                if body is None:
                    outcome.deferred.append(rows.key(row))
                elif passes(kind_of(row), len(body)):
                    self._send(fast, row, sent, outcome)
                else:
                    unknown.append(row)
            if sent:
                # To find out takes a while: that is not waited for with those that are known.
                outcome.deferred += [rows.key(row) for row in unknown]
            elif unknown:
                good, refused = await self._vetting.vet(unknown, lambda: fast.state == "connected")
                outcome.parked |= refused
                for row in good:
                    self._send(fast, row, sent, outcome)
        except Exception as error:
            if isinstance(error, CannotTryError) and len(found) == BATCH:
                # Behind these there may be some that are known.
                outcome.deferred += [rows.key(row) for row in unknown if self._vetting.knows_any]
            # Nothing more leaves; of what did, the outcome counts.
            if not sent and not outcome.parked and not outcome.deferred:
                raise
        if sent:
            await self._wait_for_confirms(connection, fast, [confirm for _, confirm in sent])
            self._sort(fast, sent, outcome)
        return outcome

    async def _wait_for_confirms(
        self,
        connection: Connection,
        fast: Publisher,
        confirms: Sequence["asyncio.Future[None]"],
    ) -> None:
        patience = min(max(PATIENCE, 3 * self._careful.confirm_seconds), MOST_PATIENCE)
        all_of_them = asyncio.create_task(_all_done(confirms))
        try:
            while (await asyncio.wait([all_of_them], timeout=patience))[1]:
                # While the broker has an alarm nothing is confirmed, and nothing is wrong with any.
                if fast.state != "blocked" or self._stopping.is_set():
                    return
                self.last_turn = time.monotonic()
                # Its rows stay locked.
                await asyncio.to_thread(connection.execute, text("SELECT 1"))
        finally:
            all_of_them.cancel()

    def _send(self, fast: Publisher, row: Row[Any], sent: list["_Sent"], outcome: Outcome) -> None:
        try:
            sent.append((row, fast.send(rows.checked(row))))
        except PublishError:
            raise
        except Exception as error:  # noqa: BLE001 - what cannot be encoded is its own row's fault
            outcome.parked[rows.key(row)] = rows.unfit(error)

    def _sort(self, fast: Publisher, sent: list["_Sent"], outcome: Outcome) -> None:
        """Put into `outcome` what is known of what was sent."""
        late = set()
        for row, confirm in sent:
            if not confirm.done():
                late.add((row.exchange, row.routing_key))
                outcome.doubtful[rows.key(row)] = "sent, and not confirmed in time"
                continue
            error = confirm.exception()
            if error is None:
                outcome.confirmed.append(rows.key(row))
            elif isinstance(error, ReturnedError | NackedError):
                outcome.parked[rows.key(row)] = str(error)
            else:
                self._vetting.forget()
                outcome.doubtful[rows.key(row)] = f"sent, and the confirm was lost: {error}"
        if late:
            self._careful.suspect(late)
            self._abandon(fast)

    def _abandon(self, fast: Publisher) -> None:
        """Go on over another connection: the broker may have stopped reading this one."""
        if fast is not self._fast:
            return
        log.warning("connection_abandoned", outstanding=fast.outstanding)
        self._fast = self._publisher("relay")

        async def change() -> None:
            # The other way round the new one would begin at the address that is silent.
            try:
                await fast.abandon()
            finally:
                if not self._stopping.is_set():
                    await self._fast.start()

        task = asyncio.create_task(change())
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)


_Sent = tuple[Row[Any], "asyncio.Future[None]"]


class _Troubles:
    """What goes wrong with rows: told wherever the relay's standing is, until no lane meets it.

    Args:
        standing: gives what to tell, which may be another connection's by now.
    """

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self._standing = standing
        self._lanes: set[int] = set()

    def met(self, lane: int, error: Exception) -> None:
        if not self._lanes:
            log.warning("relay_interrupted", error=f"{type(error).__name__}: {error}"[:300])
        self._lanes.add(lane)
        if is_database_away(error):
            self._standing().holding(held_by(error), "database")
        elif not isinstance(error, PublishError):  # of which the connection itself tells
            self._standing().failing(error)

    def over(self, lane: int) -> None:
        if lane in self._lanes:
            self._lanes.discard(lane)
            if not self._lanes:
                self._standing().released()


def _listen(
    database_url: str,
    loop: asyncio.AbstractEventLoop,
    wake: Callable[[], None],
    stopping: threading.Event,
) -> None:
    """Call `wake` in the loop at each NOTIFY. While the connection is lost polling goes on."""
    listener = Listener(database_url, CHANNEL, "relay-listen")
    while not stopping.is_set():
        if listener.wait(stopping, POLL_SECONDS):
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:  # the loop is closed: the process stops
                return


async def _all_done(confirms: Iterable["asyncio.Future[None]"]) -> None:
    """Wait for confirms, in their order: of those that come together one has anybody waiting.

    To have somebody wait for each, as `gather` does, is a turn of the loop a row.
    """
    for confirm in confirms:
        if not confirm.done():
            await asyncio.wait((confirm,))


async def _wait(stopping: asyncio.Event, seconds: float) -> bool:
    """Returns whether it was stopped, after so many seconds at most."""
    try:
        async with asyncio.timeout(seconds):
            return await stopping.wait()
    except TimeoutError:
        return False


async def _first_of(one: asyncio.Event, other: asyncio.Event, seconds: float) -> None:
    waiters = [asyncio.create_task(one.wait()), asyncio.create_task(other.wait())]
    await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for waiter in waiters:
        waiter.cancel()
