"""Rows in doubt, and parked rows that are due: few at a time, each waited for as long as it takes.

At full speed a thousand rows are under way at once, and one queue that does not answer keeps the
broker from reading the connection, or the channel from going on (RabbitMQ, "Flow Control"): what
was sent is then in doubt. It comes here, where no connection is ever given up, so that no row is
sent again over one. A destination under suspicion has a connection of its own until it confirms,
and is tried ever less often; the others share one, with so little for each that no queue can clog
it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
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
"""Rows under way to a destination that confirms."""
MOST_SHARED = 30
"""Rows under way on the connection that destinations share, which may all be for one queue: beyond
32 for one the broker holds the connection back (`quorum_commands_soft_limit`)."""
MOST_HELD = 6
"""Rows under way to a destination that does not: the late confirm of any will tell."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds between two tries of such a destination
AT_ONCE = 200
CONNECTING_SECONDS = 0.05
STOP_SECONDS, LEAST_STOP_SECONDS = 5.0, 1.0
"""How long a stop waits for what is under way: what is given up goes out once more."""
SLOW_SECONDS = 10.0
"""A confirm that takes longer is of a queue that was stuck; before, of a broker that is slow."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Window:
    """How a destination does.

    Attributes:
        is_stuck: it does not confirm.
        under_way: rows that were sent there and not confirmed.
        room: how many may be; one until the first confirm.
        pause: seconds to the try after the next, while it is stuck.
        next_try: when, on the monotonic clock.
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
    """A row that was sent, and whose confirm is waited for."""

    destination: Destination
    sent_at: float


class Careful:
    """Sends rows whose next try is due. For one loop.

    Args:
        engine: of the database.
        connect: makes a publisher of this name.
        vetting: which rows may be sent.
        patience: seconds until a destination counts as one that does not confirm.
    """

    def __init__(
        self,
        engine: Engine,
        connect: Callable[[str], Publisher],
        vetting: Vetting,
        patience: float,
    ) -> None:
        self._engine = engine
        self._connect = connect
        self._publisher = connect("relay-careful")
        self._alone: dict[Destination, Publisher] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._vetting = vetting
        self._patience = patience
        self._windows: dict[Destination, _Window] = {}
        self._held: dict[Key, _Held] = {}
        self._outcome = Outcome()
        self._renew_at = 0.0
        self._slowest = 0.0
        self._stop_at = 0.0
        self.wake = asyncio.Event()
        """Set when there is something to do."""

    @property
    def stuck(self) -> list[Destination]:
        """The destinations to which nothing more is sent at full speed."""
        return [name for name, window in self._windows.items() if window.is_stuck]

    @property
    def confirm_seconds(self) -> float:
        """How long a confirm took that came too late; 0 when that says nothing of the broker."""
        return self._slowest

    @property
    def standing(self) -> Standing:
        """How it stands with the broker, by the connection that destinations share."""
        return self._publisher.standing

    def suspect(self, destinations: Iterable[Destination]) -> None:
        """Take destinations for stuck until one of their rows is confirmed."""
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
        """Settle what ended, and send what is due; returns whether to go on at once."""
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
        """Note that nothing more is sent, and that the process has begun to stop."""
        self._stop_at = time.monotonic() + STOP_SECONDS

    async def stop(self) -> None:
        """Wait for what is under way for a moment; then others may try it at once."""
        publishers = [self._publisher, *self._alone.values()]
        patience = max(self._stop_at - time.monotonic(), LEAST_STOP_SECONDS)
        await asyncio.gather(*(one.stop(patience) for one in publishers), *self._closing)
        await asyncio.sleep(0)  # the callbacks of what ended by that
        with self._engine.connect() as connection:
            await self._settle(connection)

    async def _settle(self, connection: Connection) -> None:
        outcome, now = self._outcome, time.monotonic()
        renewed = now >= self._renew_at and bool(self._held)
        if renewed:
            outcome.held = list(self._held)
        if outcome == Outcome():
            return
        self._outcome = Outcome()
        try:
            await asyncio.to_thread(rows.settle, connection, outcome)
        except Exception:
            # The database is away: what became of the rows must not be forgotten.
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
        now = time.monotonic()
        full = [name for name in self._windows if not self._takes_more(name, now)]
        found = await asyncio.to_thread(rows.take_due, connection, full, AT_ONCE)
        return await self._send(connection, found)

    async def _send_canaries(self, connection: Connection) -> bool:
        """Try a destination that is stuck and has nothing in doubt with its first fresh row."""
        sent = False
        for destination in self.stuck:
            if not self._takes_more(destination, time.monotonic()):
                continue
            found = await asyncio.to_thread(rows.take_one_fresh, connection, destination)
            if found:
                sent = await self._send(connection, found) or sent
            elif not self._windows[destination].under_way and not await asyncio.to_thread(
                rows.is_wanted, connection, destination
            ):
                del self._windows[destination]
                self._rejoin(destination)
        return sent

    async def _send(self, connection: Connection, found: Sequence[Row[Any]]) -> bool:
        if not found:
            return False
        # A row that is waited for here is not due: its lease ran out while the database was away.
        outcome = Outcome(held=[rows.key(row) for row in found if rows.key(row) in self._held])
        fresh = [row for row in found if rows.key(row) not in self._held]
        vetted = [row for row in fresh if self._vetting.passes(kind_of(row), len(row.body))]
        if len(vetted) < len(fresh):
            vetted, outcome.parked = await self._vetting.vet(
                fresh, lambda: self._publisher.state == "connected"
            )
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
            # Written down first: what is sent is nobody else's to send.
            await asyncio.to_thread(rows.settle, connection, outcome)
        except Exception:
            for row in chosen:
                self._window((row.exchange, row.routing_key)).under_way -= 1
            raise
        rows.tell_parked(fresh, outcome)
        metrics.count(outcome)
        for row in chosen:
            self._publish(row)
        return bool(chosen or outcome.parked)

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
            # The broker may have changed; what was stuck is still looked at before it is trusted.
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
        """Give each destination under suspicion a connection of its own."""
        for destination in self.stuck:
            if destination not in self._alone:
                self._alone[destination] = self._connect("relay-alone")
                await self._alone[destination].start()
        if any(self._alone[name].state != "connected" for name in self.stuck):
            asyncio.get_running_loop().call_later(CONNECTING_SECONDS, self.wake.set)

    def _rejoin(self, destination: Destination) -> None:
        """Close a destination's own connection once nothing is under way on it."""
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
