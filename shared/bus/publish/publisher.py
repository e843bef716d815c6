"""The publisher: one pika connection in the running loop, confirms pipelined.

Many messages are outstanding at once; each caller awaits the confirm of its own. What the broker
does, and what it means here (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms"):

* Confirms come out of order and, with `multiple`, for all tags up to one.
* A message that no queue wants is returned first and then acknowledged all the same, so a return is
  remembered by message id until the acknowledgement comes.
* Under a memory or disk alarm it stops reading; it says so with `connection.blocked`.
* pika has no backpressure of its own, so the number outstanding is bounded.

What goes to `intake` is safe when the journal has it too, where it gets by the batch (journal.py);
so do facts.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import structlog
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel

from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import connect
from shared.bus.broker.pika_connection import Link, call, open_channel
from shared.bus.contract import journal
from shared.bus.contract.message import Message
from shared.bus.metrics import ConfirmMetrics
from shared.bus.publish.confirms import (
    BlockedError,
    ConfirmTimeoutError,
    NackedError,
    Outstanding,
    OverloadedError,
    ReturnedError,
    UnavailableError,
    Waiting,
)
from shared.bus.publish.framing import publish_frames

SWEEP_SECONDS = 0.1
# A broker that confirms nothing for so long gets a new connection: a confirm that was lost with a
# queue's leader may never come on the old one.
STALLED_SECONDS = 30.0
UNHURRIED = 1e9
"""As a `confirm_timeout`: what was sent is waited for until the connection ends."""
JOURNAL_OUTSTANDING = 64
"""Messages of the journal that may be unconfirmed where nobody waits for them. Beyond 256 the
broker would stop reading from the connection (RabbitMQ, `stream_messages_soft_limit`)."""

log = structlog.get_logger()


class Publisher:
    """Publishes with confirms over one connection.

    Args:
        amqp_url: where to: one address or several.
        name: how the broker shows the connection.
        max_outstanding: how many messages may wait for their confirm at once.
        confirm_timeout: seconds to wait for one.
        heartbeat: seconds.
        waits_for_journal: whether a message is safe only once the journal has it too.
            Where it is not waited for, a journal that does not confirm misses some of them.
        missing: the exchanges of the journal that are not there at the moment: nothing is written
            to those.
    """

    def __init__(
        self,
        amqp_url: str,
        *,
        name: str,
        max_outstanding: int,
        confirm_timeout: float,
        heartbeat: int,
        waits_for_journal: bool = True,
        missing: Collection[str] = (),
    ) -> None:
        self._amqp_url = amqp_url
        self._name = name
        self._max_outstanding = max_outstanding
        self._confirm_timeout = confirm_timeout
        self._waits_for_journal = waits_for_journal
        self._missing = missing
        self._metrics = ConfirmMetrics(name)
        self._link = Link(
            amqp_url,
            name=name,
            heartbeat=heartbeat,
            setup=self._opened,
            on_lost=self._lost,
            on_ack=self._on_ack,
        )
        self.standing = self._link.standing
        self._connection: AsyncioConnection | None = None
        self._channel: Channel | None = None
        self._frame_max = 0
        self._blocked = False
        self._tag = 0
        self._outstanding: OrderedDict[int, Outstanding] = OrderedDict()
        self._count = 0
        self._returned: Counter[str] = Counter()
        self._frames: list[bytes] = []
        # What this turn adds to the journal, by where.
        self._kept: dict[str, list[tuple[Waiting, bytes]]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def state(self) -> str:
        """`connected`, `blocked`, `stalled` or `away`, for readiness and metrics."""
        if self._channel is None:
            return "away"
        if self._blocked:
            return "blocked"
        return "stalled" if self._stalled() else "connected"

    @property
    def outstanding(self) -> int:
        """How many messages wait for their confirm; the journal's are not among them."""
        return self._count

    async def start(self) -> None:
        """Begin connecting in the background; returns at once."""
        self._link.start()
        # Kept, since to ask for the running loop is a system call in Python 3.11: 4% of an order.
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.create_task(self._sweep())

    async def stop(self, patience: float | None = None) -> None:
        """Wait for what is outstanding, then close.

        Args:
            patience: seconds to wait; as long as a confirm may take when not given.
        """
        waiting = {w.future for entry in self._outstanding.values() for w in entry.waiting}
        if waiting:
            await asyncio.wait(
                waiting, timeout=self._confirm_timeout if patience is None else patience
            )
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._link.stop()
        self._lost("stopped")

    async def publish(self, message: Message) -> None:
        """Publish a message, persistent and mandatory; returns when the broker has confirmed it.

        Raises:
            PublishError: one of its kinds, each of which says what is known.
        """
        await self.send(message)

    def send(self, message: Message) -> "asyncio.Future[None]":
        """Like `publish`, but returns the confirm to await, so that many can be under way in order.

        Raises:
            UnavailableError: at once.
            BlockedError: at once.
            OverloadedError: at once.
        """
        if self._channel is None:
            raise UnavailableError("not connected to the broker")
        if self._blocked:
            raise BlockedError("the broker has raised an alarm")
        if self._stalled():
            raise UnavailableError("the broker does not confirm")
        if self._count >= self._max_outstanding:
            raise OverloadedError(f"{self._max_outstanding} messages wait for their confirm")
        frames = publish_frames(1, message, self._frame_max)
        loop = self._loop
        if loop is None:
            raise UnavailableError("the publisher was not started")
        future: asyncio.Future[None] = loop.create_future()
        place = journal.place(message.exchange, message.routing_key)
        if place in self._missing:
            place = ""
        waiting = Waiting(future, 2 if place and self._waits_for_journal else 1)
        self._note(message.message_id, (waiting,), counts=1)
        if not self._frames:
            # All that is published in this turn of the loop leaves in one write.
            loop.call_soon(self._flush)
        self._frames.append(frames)
        if place:
            event = journal.event(message)
            if self._waits_for_journal or len(event) < journal.MAX_BYTES:
                self._kept.setdefault(place, []).append((waiting, event))
            else:
                log.error("journal_misses", messages=1, bytes=len(event))
        return future

    def _note(self, message_id: str, waiting: Sequence[Waiting], *, counts: int) -> None:
        self._tag += 1
        self._count += counts
        deadline = time.monotonic() + self._confirm_timeout
        self._outstanding[self._tag] = Outstanding(message_id, waiting, deadline, counts)

    def _write_journal(self) -> None:
        """Add what this turn adds to the journal, as few messages."""
        places, self._kept = self._kept, {}
        for place, kept in places.items():
            behind = len(self._outstanding) - self._count
            if behind >= JOURNAL_OUTSTANDING and not self._waits_for_journal:
                log.error("journal_misses", messages=len(kept))
                continue
            start = size = 0
            for end, (_, event) in enumerate(kept):
                size += len(event)
                if size > journal.MAX_BYTES and end > start:
                    self._write_part(place, kept[start:end])
                    start, size = end, len(event)
            self._write_part(place, kept[start:])

    def _write_part(self, place: str, part: Sequence[tuple[Waiting, bytes]]) -> None:
        message = journal.batch([event for _, event in part], self._name, place)
        waiters = [waiting for waiting, _ in part] if self._waits_for_journal else ()
        self._note(message.message_id, waiters, counts=0)
        self._frames.append(publish_frames(1, message, self._frame_max))

    def _flush(self) -> None:
        if self._kept:
            self._write_journal()
        frames, self._frames = self._frames, []
        if frames and self._connection is not None and self._connection.is_open:
            # The one private method of pika's in use: it is what writes frames and counts them for
            # the heartbeat. Its public callers encode each message anew.
            self._connection._output_marshaled_frames([b"".join(frames)])

    async def _opened(self, connection: AsyncioConnection) -> None:
        await asyncio.to_thread(_ensure, self._amqp_url)
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        channel = await open_channel(connection)
        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        await call(channel.confirm_delivery, ack_nack_callback=self._on_nack)
        if channel.channel_number != 1:
            raise RuntimeError("the publisher's channel must be the connection's first")
        self._frame_max = connection.params.frame_max
        self._tag, self._blocked = 0, False
        self._connection, self._channel = connection, channel

    async def abandon(self) -> None:
        """Close without waiting for anything, the broker included: it may have stopped reading."""
        self._link.abort()
        await self.stop(0)

    def _lost(self, reason: str) -> None:
        self._connection = self._channel = None
        self._blocked = False
        self._frames.clear()
        self._kept.clear()
        self._returned.clear()
        entries, self._outstanding, self._count = self._outstanding, OrderedDict(), 0
        for entry in entries.values():
            entry.failed(UnavailableError(f"the connection was lost: {reason}"))

    def _on_channel_closed(self, _: Channel, reason: BaseException) -> None:
        # A closed channel cannot be used again, and its confirms will not come.
        self._lost(str(reason))
        self._link.reset(reason)

    def _on_blocked(self, _: Any, __: Any) -> None:
        self._blocked = True
        log.warning("broker_blocked", address=self.standing.where)
        if self._link.leave_alarm():
            return
        self.standing.holding("The broker takes no messages: it is short of memory or disk space.")

    def _on_unblocked(self, _: Any, __: Any) -> None:
        self._blocked = False
        log.warning("broker_unblocked", address=self.standing.where)
        self.standing.released()

    def _on_return(self, _: Channel, __: Any, properties: Any, ___: bytes) -> None:
        if properties.type == journal.TYPE:
            # Orders are safe without it: nobody's order waits for a journal that was deleted.
            log.error("no_journal")
        else:
            self._returned[properties.message_id] += 1

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if self._connection is not None:
            # pika takes a connection on which it receives nothing for dead.
            self._connection.bytes_received += 1
        self._on_confirm(tag, multiple, acked=True)

    def _on_nack(self, frame: Any) -> None:
        self._on_confirm(frame.method.delivery_tag, frame.method.multiple, acked=False)

    def _on_confirm(self, up_to: int, multiple: bool, *, acked: bool) -> None:
        if not multiple:
            entry = self._outstanding.pop(up_to, None)
            if entry is not None:
                self._metrics.confirmed(entry.deadline - self._confirm_timeout)
                self._settle(entry, acked)
            return
        if self._outstanding:
            oldest = next(iter(self._outstanding.values()))
            self._metrics.confirmed(oldest.deadline - self._confirm_timeout)
        while self._outstanding:
            tag = next(iter(self._outstanding))
            if tag > up_to:
                break
            self._settle(self._outstanding.pop(tag), acked)

    def _settle(self, entry: Outstanding, acked: bool) -> None:
        self._count -= entry.counts
        if not acked:
            entry.failed(NackedError("the broker refused the message"))
        elif self._returned and entry.message_id in self._returned:
            # Of several under way with one id, each has a return of its own.
            self._returned[entry.message_id] -= 1
            self._returned = +self._returned
            entry.failed(ReturnedError("no queue is bound for the message"))
        else:
            for waiting in entry.waiting:
                waiting.confirmed()

    def _stalled(self) -> bool:
        """Whether the oldest outstanding message is overdue.

        It stays in the books until its confirm or the connection's end, so that what the broker has
        not answered for is bounded also when it answers for nothing.
        """
        if not self._outstanding:
            return False
        return next(iter(self._outstanding.values())).deadline < time.monotonic()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for entry in self._outstanding.values():
                if entry.deadline >= now:
                    break
                entry.failed(ConfirmTimeoutError(f"no confirm within {self._confirm_timeout:g} s"))
                if entry.deadline + STALLED_SECONDS < now:
                    # Who confirms nothing may not answer to a close either.
                    self._link.abort("the broker confirms nothing")
                    break


def _ensure(amqp_url: str) -> None:
    with connect(amqp_url, timeout=5) as connection:
        declaration.ensure(connection)
