"""The publisher: pipelined confirms over one pika connection in the running loop.

Many messages are outstanding at the same time; each caller awaits its own confirm. The broker's
rules (RabbitMQ, "Consumer Acknowledgements and Publisher Confirms") and how they are met:

* Confirms arrive out of order and, with `multiple`, for all tags up to one.
* An unroutable message is returned and then acknowledged all the same, so returns are kept by
  message id until the acknowledgement arrives.
* With a memory or disk alarm the broker stops reading, and sends `connection.blocked`.
* pika has no backpressure, so the number of outstanding messages is bounded here.

Messages to `intake`, and facts, are written to the journal as well, in batches (see `journal`).
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import structlog
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import connect
from shared.bus.broker.pika_connection import Link, call, open_channel
from shared.bus.contract import journal, topology
from shared.bus.contract.message import Message, sharded
from shared.bus.metrics import ConfirmMetrics, miss
from shared.bus.publish.confirms import (
    BlockedError,
    ConfirmTimeoutError,
    NackedError,
    NoShardError,
    Outstanding,
    OverloadedError,
    PendingConfirm,
    ReturnedError,
    UnavailableError,
)
from shared.bus.publish.framing import publish_frames

SWEEP_SECONDS = 0.1
# After so long without a confirm the connection is replaced: a confirm that was lost with a queue's
# leader never arrives on the old one.
STALLED_SECONDS = 30.0
UNHURRIED = 1e9
"""A `confirm_timeout` that only the end of the connection cuts short."""
JOURNAL_OUTSTANDING = 64
"""The most unconfirmed journal messages if callers do not wait for them. Beyond 256 the broker
would stop reading from the connection (RabbitMQ, `stream_messages_soft_limit`)."""
LAST_JOURNAL_SECONDS = 1.0
"""How long a stop waits for their confirms."""

REFUSED = 403
"""`access-refused` (AMQP 0-9-1, 1.2)."""

log = structlog.get_logger()


class Publisher:
    """Publishes with confirms over one connection.

    Args:
        amqp_url: one address or several.
        name: shown by the broker's tools.
        max_outstanding: the most messages without a confirm.
        confirm_timeout: in seconds.
        heartbeat: in seconds.
        waits_for_journal: whether a confirm includes the journal's. If not, messages that the
            journal does not confirm are counted as missed.
        missing: exchanges of the journal that do not exist at the moment; nothing is written to
            them.
        shards: the number of queues over which messages for `intake` are spread, by account. If
            one is missing, all messages go to the first queue until the connection ends; if the
            broker refuses, until the process ends.
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
        shards: int = 1,
    ) -> None:
        self._amqp_url = amqp_url
        self._name = name
        self._max_outstanding = max_outstanding
        self._confirm_timeout = confirm_timeout
        self._waits_for_journal = waits_for_journal
        self._missing = missing
        self._shards = shards
        self._spread = 1  # the number of shards in use
        self._shardless: set[str] = set()  # ids of messages returned for want of a shard
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
        # The journal events of this turn of the loop, by exchange.
        self._kept: dict[str, list[tuple[PendingConfirm, bytes]]] = {}
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
        """How many messages lack their confirm, without those of the journal."""
        return self._count

    async def start(self) -> None:
        """Start connecting in the background."""
        self._link.start()
        # Kept: in Python 3.11 get_running_loop is a system call, 4% of an order.
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.create_task(self._sweep())

    async def stop(self, patience: float | None = None) -> None:
        """Wait for outstanding confirms, then close.

        Args:
            patience: seconds to wait; `confirm_timeout` if not given. Confirms of the journal alone
                are waited for `LAST_JOURNAL_SECONDS` in any case.
        """
        waiting = {w.future for entry in self._outstanding.values() for w in entry.waiting}
        patience = self._confirm_timeout if patience is None else patience
        if not self._waits_for_journal:
            patience = max(patience, LAST_JOURNAL_SECONDS)
        if waiting:
            await asyncio.wait(waiting, timeout=patience)
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._link.stop()
        self._lost("stopped")

    async def publish(self, message: Message) -> None:
        """Publish a persistent, mandatory message and wait for its confirm.

        Raises:
            PublishError: one of its subclasses.
        """
        await self.send(message)

    def send(self, message: Message) -> "asyncio.Future[None]":
        """Publish a message and return the future of its confirm.

        Raises:
            UnavailableError: there is no working connection.
            BlockedError: the broker has an alarm.
            OverloadedError: `max_outstanding` is reached.
        """
        if self._channel is None:
            raise UnavailableError("not connected to the broker")
        if self._blocked:
            raise BlockedError("the broker has raised an alarm")
        if self._stalled():
            raise UnavailableError("the broker does not confirm")
        if self._count >= self._max_outstanding:
            raise OverloadedError(f"{self._max_outstanding} messages wait for their confirm")
        # Only the routing knows shards; the journal and the logs do not.
        routed = message if self._spread == 1 else sharded(message, self._spread)
        frames = publish_frames(1, routed, self._frame_max)
        loop = self._loop
        if loop is None:
            raise UnavailableError("the publisher was not started")
        future: asyncio.Future[None] = loop.create_future()
        place = journal.place(message.exchange, message.routing_key)
        waiting = PendingConfirm(future, 2 if place and self._waits_for_journal else 1)
        self._note(message.message_id, (waiting,), counts=1)
        if not self._frames:
            # All messages of this turn of the loop are written together.
            loop.call_soon(self._flush)
        self._frames.append(frames)
        if place:
            event = journal.event(message)
            if self._waits_for_journal or len(event) < journal.MAX_BYTES:
                self._kept.setdefault(place, []).append((waiting, event))
            else:
                _miss(1, f"it has {len(event):,} bytes")
        return future

    def _note(self, message_id: str, waiting: Sequence[PendingConfirm], *, counts: int) -> None:
        self._tag += 1
        self._count += counts
        deadline = time.monotonic() + self._confirm_timeout
        self._outstanding[self._tag] = Outstanding(message_id, waiting, deadline, counts)

    def _write_journal(self) -> None:
        """Write the journal events of this turn as few messages."""
        places, self._kept = self._kept, {}
        for place, kept in places.items():
            if place in self._missing:
                _miss(len(kept), f"its exchange {place} is not there")
                continue
            behind = len(self._outstanding) - self._count
            if behind >= JOURNAL_OUTSTANDING and not self._waits_for_journal:
                _miss(len(kept), "it does not confirm what was sent before")
                continue
            start = size = 0
            for end, (_, event) in enumerate(kept):
                size += len(event)
                if size > journal.MAX_BYTES and end > start:
                    self._write_part(place, kept[start:end])
                    start, size = end, len(event)
            self._write_part(place, kept[start:])

    def _write_part(self, place: str, part: Sequence[tuple[PendingConfirm, bytes]]) -> None:
        message = journal.batch([event for _, event in part], self._name, place)
        waiters = [waiting for waiting, _ in part]
        if not self._waits_for_journal:
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            told.add_done_callback(partial(_count_missed, waiters))
            waiters = [PendingConfirm(told, 1)]
        self._note(message.message_id, waiters, counts=0)
        self._frames.append(publish_frames(1, message, self._frame_max))

    def _flush(self) -> None:
        if self._kept:
            self._write_journal()
        frames, self._frames = self._frames, []
        if frames and self._connection is not None and self._connection.is_open:
            # Private, since the public methods encode each message themselves; this one writes
            # frames and counts them for the heartbeat.
            self._connection._output_marshaled_frames([b"".join(frames)])

    async def _opened(self, connection: AsyncioConnection) -> None:
        self._spread = await asyncio.to_thread(_ensure, self._amqp_url, self._shards)
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
        """Close without waiting for confirms or for the broker, which may have stopped reading."""
        self._link.abort()
        await self.stop(0)

    def _lost(self, reason: str) -> None:
        self._connection = self._channel = None
        self._blocked = False
        self._frames.clear()
        self._kept.clear()
        self._returned.clear()
        self._shardless.clear()
        entries, self._outstanding, self._count = self._outstanding, OrderedDict(), 0
        for entry in entries.values():
            entry.failed(UnavailableError(f"the connection was lost: {reason}"))

    def _on_channel_closed(self, _: Channel, reason: BaseException) -> None:
        if self._spread > 1 and _is_refused(reason):
            # Each new connection would be closed for it again, with all outstanding messages.
            # `has_shards` does not see it before 4.2.6, where a passive declare needs no right.
            self._shards = 1
            _lacks(topology.INTAKE_SHARDS.name)
        # A closed channel cannot be used again, and its confirms never arrive.
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

    def _on_return(self, _: Channel, method: Any, properties: Any, __: bytes) -> None:
        if method.exchange == topology.INTAKE_SHARDS.name:
            if self._spread > 1:
                self._spread = 1
                _lacks(method.routing_key)
            self._shardless.add(properties.message_id)
        self._returned[properties.message_id] += 1

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if self._connection is not None:
            # pika considers a connection dead on which it receives nothing.
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
        elif not (self._returned and entry.message_id in self._returned and self._is_lost(entry)):
            for waiting in entry.waiting:
                waiting.confirmed()

    def _is_lost(self, entry: Outstanding) -> bool:
        """Take a return of a message; return whether it fails the message's waits."""
        # Several outstanding messages may have one id; each has its own return.
        self._returned[entry.message_id] -= 1
        self._returned = +self._returned
        error: UnavailableError | ReturnedError
        if entry.message_id in self._shardless:
            error = NoShardError("its shard is not there")
        else:
            error = ReturnedError("no queue is bound for the message")
        if entry.counts or not self._waits_for_journal:
            entry.failed(error)
            return True
        # A deleted journal does not keep orders from being accepted: they are in their queue.
        _miss(_on_the_bus(entry.waiting), str(error))
        return False

    def _stalled(self) -> bool:
        """Whether the oldest outstanding message is overdue.

        An overdue message stays outstanding until its confirm or the end of the connection, so that
        the number of unanswered messages is bounded also if the broker answers none.
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
                    # A broker that confirms nothing may not answer a close either.
                    self._link.abort("the broker confirms nothing")
                    break


def _count_missed(sent: Sequence[PendingConfirm], told: "asyncio.Future[None]") -> None:
    """Count the published messages that a failed journal message was to hold."""
    error = told.exception()
    if error is not None:
        _miss(_on_the_bus(sent), str(error))


def _on_the_bus(sent: Sequence[PendingConfirm]) -> int:
    """Return how many were not refused; the others are retried, and journalled then."""
    futures = [waiting.future for waiting in sent]
    return sum(f.cancelled() or not (f.done() and f.exception()) for f in futures)


def _miss(messages: int, reason: str) -> None:
    if messages:
        miss(messages)
        log.error("journal_misses", messages=messages, reason=reason)


def _ensure(amqp_url: str, shards: int) -> int:
    """Declare a missing topology; return the number of queues that messages can be spread over."""
    with connect(amqp_url, timeout=5) as connection:
        declaration.ensure(connection, shards=shards)
        if shards == 1 or declaration.has_shards(connection):
            return shards
    _lacks(topology.INTAKE_SHARDS.name)
    return 1


def _is_refused(reason: BaseException) -> bool:
    """Whether the broker closed a channel because its user may not publish to shards."""
    is_refused = isinstance(reason, ChannelClosedByBroker) and reason.reply_code == REFUSED
    return is_refused and f"'{topology.INTAKE_SHARDS.name}'" in str(reason)


def _lacks(name: str) -> None:
    log.error(
        "no_shard",
        lacking=name,
        reason="INTAKE_SHARDS is more than was declared, or this user lacks the rights of today: "
        f"all goes into {topology.ORDERS_INTAKE.name}. Run `python -m shared.bus.declare`, "
        "then restart this.",
    )
