"""The relay: publishes the outbox with confirms, and deletes confirmed rows.

A row is locked while it is being published (`FOR UPDATE SKIP LOCKED`), so several relays share the
work without losing or doubling a message. A relay that dies between confirm and commit leaves its
rows, and they are published again under the same message ids, which consumers' inboxes know.

An error affects its row only, and an unresponsive destination its own rows only:

* A row is published at full speed if the broker is known to accept messages of its kind
  (vetting.py). A row that is refused or returned is parked, with the reason, and retried at growing
  intervals.
* A row that is not confirmed in time is in doubt. It is published once more by the careful lane
  (careful.py), and not a third time unless a connection is lost.
* No row waits for the journal's confirm.
* Outcomes that could not be written to the database are remembered. Their rows look fresh when they
  are taken next; this relay then writes the outcomes down without publishing again, while another
  relay publishes them again under the same message ids.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, Row, event

from services.relay import metrics, rows
from services.relay.careful import Careful
from services.relay.full_speed import PATIENCE, FullSpeed
from services.relay.reached import Reached
from services.relay.rows import Key, Outcome
from services.relay.vetting import Vetting
from shared.bus.broker.standing import Standing
from shared.bus.consume.batch import held_by
from shared.bus.outbox import CHANNEL
from shared.bus.publish.confirms import PublishError
from shared.bus.publish.publisher import UNHURRIED, Publisher
from shared.bus.publish.traced import publisher_class
from shared.config.settings import Settings
from shared.db.listening import Listener
from shared.db.session import is_database_unavailable, make_engine

BATCH = 1_000
LANES = 2  # while one waits for confirms, the other reads or deletes
MOST_UNSETTLED = 10 * BATCH  # remembered outcomes; another relay may have settled some
POLL_SECONDS = 1.0  # polling interval, in case a NOTIFY was lost
AWAY_SECONDS = 0.5  # pause after an error
STUCK_SECONDS = 60.0
STUCK = "Its lanes have not turned for a minute: a statement waits for a lock, or it hangs"
IDLE_SECONDS = 120.0
"""The idle timeout of transactions, after which other relays get the rows of a frozen one. Longer
than a rehearsal (rehearsal.py) may take."""

log = structlog.get_logger()


class Relay:
    """Publishes the outbox.

    Args:
        config: `amqp_url`, `database_url` and `amqp_heartbeat` are used.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._engine = make_engine(
            config,
            pool_size=LANES + 1,
            idle_seconds=IDLE_SECONDS,
            # Each statement here reads a few rows in the order of an index. The table is usually
            # empty when it is analysed, so the planner would choose to sort all rows.
            options="-c enable_sort=off -c enable_seqscan=off",
        )
        self._vetting = Vetting(config.amqp_url)
        # Shared by the lanes: the rows being sent, and outcomes that could not be written down.
        self._in_hand: set[Key] = set()
        self._unsettled: dict[Key, Sequence[str]] = {}
        self._careful = Careful(
            self._engine,
            self._publisher,
            self._vetting,
            PATIENCE,
            in_hand=self._in_hand,
            unsettled=self._unsettled,
        )
        self._full_speed = FullSpeed(
            lambda: self._publisher("relay", self._config.intake_shards),
            self._vetting,
            self._careful,
            self._turn,
        )
        self._lane_errors = _LaneErrors(lambda: self._full_speed.publisher.standing)
        self._careful_errors = _LaneErrors(lambda: self._careful.standing)
        self._reached = Reached()
        # A new connection may be to a promoted standby, whose sequence numbers restart lower.
        event.listen(self._engine, "connect", lambda *_: self._reached.change_server())
        self._written = asyncio.Event()
        self.last_turn = time.monotonic()

    @property
    def standings(self) -> Sequence[Standing]:
        """The states of the full-speed and the careful connection."""
        return self._full_speed.publisher.standing, self._careful.standing

    def is_turning(self) -> bool:
        """Whether the lanes turn; if not, the standings report it."""
        is_turning = time.monotonic() - self.last_turn < STUCK_SECONDS
        for standing in self.standings:
            if is_turning:
                standing.moved()
            else:
                standing.stuck(STUCK)
        return is_turning

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping` is set; batches that have begun are finished."""
        await self._full_speed.start(stopping)
        await self._careful.start()
        loop = asyncio.get_running_loop()
        listening = threading.Event()
        listener = threading.Thread(
            target=_listen,
            args=(self._config.database_url, loop, self._wake, listening),
            daemon=True,
        )
        listener.start()
        lanes = [asyncio.create_task(self._lane(number, stopping)) for number in range(LANES)]
        careful = asyncio.create_task(self._careful_lane(stopping))
        await asyncio.gather(*lanes, careful)
        listening.set()
        await self._full_speed.stop()
        try:
            await self._careful.stop()
        except Exception as error:  # noqa: BLE001 - the leases of its rows expire
            log.warning("left_in_doubt", error=f"{type(error).__name__}: {error}"[:300])
        closing = self._full_speed.closed(), self._vetting.close()
        await asyncio.gather(*closing, return_exceptions=True)
        self._engine.dispose()

    def _publisher(self, name: str, shards: int = 1) -> Publisher:
        return publisher_class()(
            self._config.amqp_url,
            name=name,
            max_outstanding=BATCH * LANES,
            confirm_timeout=UNHURRIED,
            heartbeat=self._config.amqp_heartbeat,
            waits_for_journal=False,
            missing=self._vetting.missing,
            shards=shards,
        )

    def _turn(self) -> float:
        self.last_turn = time.monotonic()
        return self.last_turn

    def _wake(self) -> None:
        self._written.set()
        self._careful.wake.set()

    async def _lane(self, number: int, stopping: asyncio.Event) -> None:
        """Publish fresh rows at full speed."""
        # With full batches, each begins where the last one ended.
        after, looked, is_begun = 0, 0.0, False
        while not stopping.is_set():
            now = self._turn()
            if self._full_speed.publisher.state != "connected":
                await _wait(stopping, AWAY_SECONDS)
                continue
            self._written.clear()
            is_thorough = self._reached.is_thorough(now)
            if is_thorough or not is_begun or now - looked > POLL_SECONDS:
                first = self._reached.after(now, self._careful.stuck, is_thorough=is_thorough)
                after, looked = min(after, first) if is_begun else first, now
            try:
                count, last = await self._batch(after, is_thorough=is_thorough)
                self._lane_errors.over(number)
            except Exception as error:  # noqa: BLE001 - the rows stay in the outbox
                self._lane_errors.met(number, error)
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
        """Publish rows in doubt, and parked rows that are due."""
        while not stopping.is_set():
            self._careful.wake.clear()
            try:
                goes_on = await self._careful.turn()
                self._careful_errors.over(0)
            except Exception as error:  # noqa: BLE001 - as in `_lane`
                self._careful_errors.met(0, error)
                goes_on = await _wait(stopping, AWAY_SECONDS)
            if not goes_on:
                await _first_of(self._careful.wake, stopping, POLL_SECONDS)
        self._careful.cease()

    async def _batch(self, after: int, *, is_thorough: bool) -> tuple[int, int]:
        """Relay one batch; return the number of rows found and the sequence of the last one."""
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
                outcome = await self._relay_rows(connection, found)
                if outcome.no_longer_fresh == count:
                    self._reached.note(time.monotonic(), last)
                else:
                    self._reached.forget()
                if outcome.doubtful or outcome.deferred:
                    self._careful.wake.set()
                rows.log_parked(found, outcome)
                metrics.count(outcome)
            if look is not None:
                self._reached.end(look, time.monotonic(), took, last if count == BATCH else None)
        finally:
            await asyncio.to_thread(connection.close)
        return count, last

    async def _relay_rows(self, connection: Connection, found: Sequence[Row[Any]]) -> Outcome:
        """Publish rows, write their outcome down, and return it.

        If the transaction is lost, its rows are unlocked before their outcome is known; `_in_hand`
        and `_unsettled` keep the other lane from publishing them again.
        """
        outcome, fresh = Outcome(), []
        for row in found:
            key = rows.key(row)
            if key in self._unsettled:
                outcome.enter(key, *self._unsettled[key])
            elif key not in self._in_hand:
                fresh.append(row)
        mine = [rows.key(row) for row in fresh]
        self._in_hand.update(mine)
        try:
            if fresh:
                is_full = len(found) == BATCH
                await self._full_speed.publish(connection, fresh, outcome, is_full=is_full)
            await asyncio.to_thread(rows.settle, connection, outcome)
        except Exception:
            for key, *what in outcome.each():
                self._unsettled[key] = what
            while len(self._unsettled) > MOST_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]
            raise
        finally:
            self._in_hand.difference_update(mine)
        if self._unsettled:
            for key, *_ in outcome.each():
                self._unsettled.pop(key, None)
        return outcome


class _LaneErrors:
    """Reports errors of the lanes through the relay's standing, until no lane has any.

    Args:
        standing: returns the current one, since connections are replaced.
    """

    def __init__(self, standing: Callable[[], Standing]) -> None:
        self._standing = standing
        self._lanes: set[int] = set()

    def met(self, lane: int, error: Exception) -> None:
        if not self._lanes:
            log.warning("relay_interrupted", error=f"{type(error).__name__}: {error}"[:300])
        self._lanes.add(lane)
        if is_database_unavailable(error):
            self._standing().holding(held_by(error), "database")
        elif not isinstance(error, PublishError):  # which the connection itself reports
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
    """Call `wake` in the loop at each NOTIFY; polling goes on while the connection is lost."""
    listener = Listener(database_url, CHANNEL, "relay-listen")
    while not stopping.is_set():
        if listener.wait(stopping, POLL_SECONDS):
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:  # the loop is closed: the process stops
                return


async def _wait(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait up to some seconds for a stop; return whether it came."""
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
