"""The careful lane: publishes rows in doubt and parked rows that are due, a few at a time.

At full speed a thousand rows are unconfirmed at a time, and one unresponsive queue makes the broker
stop reading the connection or the channel (RabbitMQ, "Flow Control"); all rows that were sent are
then in doubt. This lane waits for each confirm without a timeout and gives up no connection, so
that no row is sent a third time. A suspected destination gets its own connection until it confirms,
and is tried at growing intervals. The others share one, with so few rows for each that no queue can
block it.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row

from services.relay import metrics, rows
from services.relay.rows import Destination, Key, Outcome
from services.relay.vetting import Vetting, kind_of
from shared.bus.broker.standing import Standing
from shared.bus.publish.confirms import NackedError, PublishError, ReturnedError
from shared.bus.publish.publisher import Publisher

WINDOW = 16
"""The most unconfirmed rows of a destination that confirms."""
MOST_SHARED = 30
"""The most unconfirmed rows of the shared connection, which may all be for one queue: beyond 32 the
broker throttles the connection (`quorum_commands_soft_limit`)."""
MOST_HELD = 6
"""The most unconfirmed rows of a stuck destination; a late confirm of any shows it works."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds between two tries of a stuck destination
AT_ONCE = 200  # rows taken in one turn
CONNECTING_SECONDS = 0.05
STOP_SECONDS, LEAST_STOP_SECONDS = 5.0, 1.0
"""How long a stop waits for confirms; rows that are given up are published once more."""
SLOW_SECONDS = 10.0
"""A confirm that takes longer was of a stuck queue; a faster one is of a slow broker."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Window:
    """The state of a destination.

    Attributes:
        is_stuck: whether it has stopped confirming.
        under_way: the number of its unconfirmed rows.
        room: the most unconfirmed rows; one until the first confirm.
        pause: seconds between the next two tries, while it is stuck.
        next_try: the time of the next try, by the monotonic clock.
    """

    is_stuck: bool = False
    under_way: int = 0
    room: int = 1
    pause: float = FIRST_PAUSE
    next_try: float = 0.0

    def takes_more(self, now: float) -> bool:
        if self.is_stuck:
            return self.under_way < MOST_HELD and now >= self.next_try
        return self.under_way < self.room

    def sent(self, now: float) -> None:
        self.under_way += 1
        if self.is_stuck:
            self.next_try, self.pause = now + self.pause, min(2 * self.pause, LONGEST_PAUSE)

    def stick(self, now: float) -> None:
        self.is_stuck, self.room, self.next_try = True, 1, now


@dataclass(frozen=True, slots=True)
class _Held:
    """A row whose confirm is awaited."""

    destination: Destination
    sent_at: float


class Careful:
    """The careful lane of a relay, for one loop.

    Args:
        engine: of the database.
        connect: makes a publisher of a name.
        vetting: decides which rows may be sent.
        patience: seconds without a confirm after which a destination is stuck.
        in_hand: the rows being sent at full speed, which may have lost their locks.
        unsettled: outcomes that could not be written down, as `Outcome.each` yields them.
    """

    def __init__(
        self,
        engine: Engine,
        connect: Callable[[str], Publisher],
        vetting: Vetting,
        patience: float,
        *,
        in_hand: Collection[Key] = (),
        unsettled: MutableMapping[Key, Sequence[str]] | None = None,
    ) -> None:
        self._engine = engine
        self._connect = connect
        self._publisher = connect("relay-careful")
        self._alone: dict[Destination, Publisher] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._vetting = vetting
        self._patience = patience
        self._in_hand = in_hand
        self._unsettled = {} if unsettled is None else unsettled
        self._windows: dict[Destination, _Window] = {}
        self._held: dict[Key, _Held] = {}
        self._outcome = Outcome()
        self._renew_at = 0.0
        self._slowest = 0.0
        self._stop_at = 0.0
        self.wake = asyncio.Event()
        """Set when there may be something to do."""

    @property
    def stuck(self) -> list[Destination]:
        """The destinations that are left out at full speed."""
        return [name for name, window in self._windows.items() if window.is_stuck]

    @property
    def confirm_seconds(self) -> float:
        """The time of the last late confirm of a slow broker, in seconds; 0 if there was none."""
        return self._slowest

    @property
    def standing(self) -> Standing:
        """The state of the shared connection."""
        return self._publisher.standing

    def suspect(self, destinations: Iterable[Destination]) -> None:
        """Mark destinations as stuck until one of their rows is confirmed."""
        now = time.monotonic()
        for destination in destinations:
            window = self._window(destination)
            if not window.is_stuck:
                window.stick(now)
                log.warning("destination_stuck", exchange=destination[0], key=destination[1])
        self.wake.set()

    async def start(self) -> None:
        """Connect."""
        await self._publisher.start()

    async def turn(self) -> bool:
        """Write outcomes down and send due rows; return whether to call again immediately."""
        self._notice_stuck()
        await self._separate()
        connection = await asyncio.to_thread(self._engine.connect)
        try:
            await self._settle(connection)
            if self._publisher.state != "connected":
                return False
            return await self._send_due(connection) or await self._send_canaries(connection)
        finally:
            await asyncio.to_thread(connection.close)

    def cease(self) -> None:
        """Start the clock of a stop; `turn` is not called any more."""
        self._stop_at = time.monotonic() + STOP_SECONDS

    async def stop(self) -> None:
        """Wait a moment for confirms, then release the other rows."""
        publishers = [self._publisher, *self._alone.values()]
        patience = max(self._stop_at - time.monotonic(), LEAST_STOP_SECONDS)
        await asyncio.gather(*(one.stop(patience) for one in publishers), *self._closing)
        await asyncio.sleep(0)  # for the callbacks of the confirms that failed
        with self._engine.connect() as connection:
            await self._settle(connection)

    async def _settle(self, connection: Connection) -> None:
        outcome, now = self._outcome, time.monotonic()
        renewed = now >= self._renew_at and bool(self._held)
        # Computed each time: a row that was held at a failed try may have ended since.
        outcome.held = list(self._held) if renewed else []
        if outcome == Outcome():
            return
        self._outcome = Outcome()
        try:
            await asyncio.to_thread(rows.settle, connection, outcome)
        except Exception:
            # The outcomes are kept until they can be written.
            outcome.confirmed += self._outcome.confirmed
            outcome.doubtful |= self._outcome.doubtful
            outcome.unsent |= self._outcome.unsent
            outcome.parked |= self._outcome.parked
            self._outcome = outcome
            raise
        if renewed:
            self._renew_at = now + rows.LEASE_SECONDS / 3
        metrics.count(outcome)

    async def _send_due(self, connection: Connection) -> bool:
        # Without room on the shared connection, only destinations with their own are sent to.
        room = MOST_SHARED - self._publisher.outstanding
        if room <= 0 and not self._alone:
            return False
        now = time.monotonic()
        full = [name for name in self._windows if not self._takes_more(name, now)]
        limit = AT_ONCE if self._alone else min(AT_ONCE, room)
        found = await asyncio.to_thread(rows.take_due, connection, full, limit)
        return await self._send(connection, found, are_fresh=False)

    async def _send_canaries(self, connection: Connection) -> bool:
        """Probe stuck destinations that have no row in doubt with their first fresh row."""
        sent = False
        for destination in self.stuck:
            if not self._takes_more(destination, time.monotonic()):
                continue
            found = await asyncio.to_thread(rows.take_one_fresh, connection, destination)
            if found:
                sent = await self._send(connection, found, are_fresh=True) or sent
            elif not self._windows[destination].under_way and not await asyncio.to_thread(
                rows.is_wanted, connection, destination
            ):
                del self._windows[destination]
                self._rejoin(destination)
        return sent

    async def _send(
        self, connection: Connection, found: Sequence[Row[Any]], *, are_fresh: bool
    ) -> bool:
        if not found:
            return False
        # A row that is held here is due only because its lease expired during a database outage.
        outcome, fresh, settled = Outcome(), [], []
        for row in found:
            key = rows.key(row)
            if key in self._held:
                outcome.held.append(key)
                continue
            if key in self._unsettled:
                settled.append(key)
                # The outcome of a due row was written down by another process, and its cause may be
                # fixed by now. A confirm still counts, unless the row was edited since.
                if are_fresh or (self._unsettled[key][0] == "confirmed" and not row.mended_by):
                    outcome.enter(key, *self._unsettled[key])
                    continue
            if key not in self._in_hand:
                fresh.append(row)
        vetted = [row for row in fresh if self._vetting.passes(kind_of(row), len(row.body))]
        if len(vetted) < len(fresh):
            vetted, refused = await self._vetting.vet(
                fresh, lambda: self._publisher.state == "connected"
            )
            outcome.parked |= refused
        now, chosen = time.monotonic(), []
        room = MOST_SHARED - self._publisher.outstanding
        for row in vetted:
            destination = (row.exchange, row.routing_key)
            is_alone = destination in self._alone
            if (is_alone or room > 0) and self._takes_more(destination, now):
                chosen.append(row)
                self._window(destination).sent(now)
                room -= not is_alone
        outcome.held += [rows.key(row) for row in chosen]
        try:
            # Leased before they are sent, so that no other relay sends them.
            await asyncio.to_thread(rows.settle, connection, outcome)
        except Exception:
            for row in chosen:
                self._window((row.exchange, row.routing_key)).under_way -= 1
            raise
        for key in settled:
            self._unsettled.pop(key, None)
        rows.log_parked(found, outcome)
        metrics.count(outcome)
        for row in chosen:
            self._publish(row)
        return bool(chosen or outcome.parked or settled)

    def _publish(self, row: Row[Any]) -> None:
        destination = (row.exchange, row.routing_key)
        publisher = self._alone.get(destination, self._publisher)
        try:
            confirm = publisher.send(rows.checked(row))
        except Exception as error:  # noqa: BLE001 - what cannot be encoded is its own row's fault
            self._window(destination).under_way -= 1
            if isinstance(error, PublishError):
                self._outcome.unsent[rows.key(row)] = f"not sent: {error}"
            else:
                self._outcome.parked[rows.key(row)] = rows.unfit(error)
            self.wake.set()
            return
        self._hold(row, destination, confirm)

    def _hold(
        self, row: Row[Any], destination: Destination, confirm: "asyncio.Future[None]"
    ) -> None:
        key = rows.key(row)
        self._held[key] = _Held(destination, time.monotonic())
        confirm.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: Key, confirm: "asyncio.Future[None]") -> None:
        held = self._held.pop(key, None)
        if held is None:
            return
        window = self._window(held.destination)
        window.under_way = max(0, window.under_way - 1)
        error = confirm.exception()
        if error is None:
            self._outcome.confirmed.append(key)
        elif isinstance(error, ReturnedError | NackedError):
            self._outcome.parked[key] = str(error)
        else:
            # The broker may have changed; stuck destinations stay stuck until they confirm.
            self._outcome.doubtful[key] = f"sent, and the confirm was lost: {error}"
            self._vetting.forget()
            self._windows[held.destination] = _Window(window.is_stuck, window.under_way)
            self.wake.set()
            return
        if window.is_stuck and not isinstance(error, NackedError):
            took = time.monotonic() - held.sent_at
            self._slowest = took if took < SLOW_SECONDS else 0.0
            log.info("destination_confirms", exchange=held.destination[0], key=held.destination[1])
        if not isinstance(error, NackedError):
            self._windows[held.destination] = _Window(under_way=window.under_way, room=WINDOW)
        if not self._windows[held.destination].is_stuck:
            self._rejoin(held.destination)
        self.wake.set()

    def _takes_more(self, destination: Destination, now: float) -> bool:
        window = self._window(destination)
        publisher = self._alone.get(destination, self._publisher)
        if window.is_stuck and publisher is self._publisher:
            return False
        return publisher.state == "connected" and window.takes_more(now)

    async def _separate(self) -> None:
        """Open a separate connection for each stuck destination."""
        for destination in self.stuck:
            if destination not in self._alone:
                self._alone[destination] = self._connect("relay-alone")
                await self._alone[destination].start()
        if any(self._alone[name].state != "connected" for name in self.stuck):
            asyncio.get_running_loop().call_later(CONNECTING_SECONDS, self.wake.set)

    def _rejoin(self, destination: Destination) -> None:
        """Close a destination's own connection once all its rows are confirmed."""
        publisher = self._alone.get(destination)
        if publisher is not None and not publisher.outstanding:
            del self._alone[destination]
            task = asyncio.get_running_loop().create_task(publisher.stop(0))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _notice_stuck(self) -> None:
        now = time.monotonic()
        late = {
            held.destination
            for held in self._held.values()
            if now - held.sent_at > self._patience and not self._window(held.destination).is_stuck
        }
        if late:
            self.suspect(late)

    def _window(self, destination: Destination) -> _Window:
        return self._windows.setdefault(destination, _Window())
