"""Handle a batch of messages in one transaction, and each by itself when that fails.

Messages that the inbox knows are skipped, and a poison message does not affect the others.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable
from uuid import UUID

import structlog
from msgspec.structs import replace
from sqlalchemy.orm import Session

from shared.bus.broker.refusal import LENGTH
from shared.bus.broker.standing import Standing
from shared.bus.consume import inbox
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.errors import Happened, Hold, Malformed, Permanent, UnderWay
from shared.bus.contract.events import Event, encode
from shared.bus.contract.message import Received
from shared.db.session import is_database_unavailable, transaction
from shared.telemetry import tracing

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between tries while a dependency is unreachable
LOOK_SECONDS = 0.5  # in such a pause, between two checks whether the broker was lost

E = TypeVar("E", bound=Event)
Failures = Mapping[UUID, Exception]
BatchHandler = Callable[[Session, Sequence[Received[Any]]], Failures | None]
Handler = Callable[[Session, Received[E]], None]
Decode = Callable[[RawDelivery], Received[Any]]

process_stopping: ContextVar[threading.Event] = ContextVar(
    "process_stopping",
    default=threading.Event(),  # noqa: B039 - never set
)
"""Set when the process stops, for handlers that run long: a few seconds are left then."""

log = structlog.get_logger()


@runtime_checkable
class Remembering(Protocol):
    """A batch handler with effects outside the database, which it remembers."""

    def happened(self, ids: Collection[UUID]) -> Collection[UUID]:
        """Return the messages whose effect has happened, recorded in the database or not.

        Called when the process stops; may wait a few seconds in all for effects that have begun.
        """

    def lost(self) -> None:
        """Called when the broker was lost: messages under way may be delivered to any process."""


AGAIN = ("again", "unnamed")
"""Kinds of replay that are handled although the inbox knows the message; see `Replay`."""


REUSED = (
    "another command was carried out under this message_id, or the same for another person, within "
    "the last 30 days: send this one again under an id of its own"
)
"""Why a command is refused; see `inbox.reused`."""


class StoppedError(Exception):
    """The outcome of a message that goes back to its queue unchanged.

    The process stops, or another process has the message by now.
    """


class Delivery(NamedTuple):
    """One unacknowledged delivery.

    Attributes:
        tag: the delivery tag.
        incoming: the message.
        source: the name of the shard that held it; empty where the queue has none.
    """

    tag: int
    incoming: RawDelivery
    source: str = ""


def each(handlers: Mapping[type[Event], Handler[Any]]) -> BatchHandler:
    """Return a batch handler that calls a plain handler for each message, by the type of its data.

    A message of a type without a handler has no effect.
    """

    def handle(session: Session, messages: Sequence[Received[Any]]) -> None:
        for message in messages:
            handler = handlers.get(type(message.data))
            if handler is not None:
                with tracing.under(message.traceparent):
                    handler(session, message)

    return handle


def held_by(error: Exception, what: str = "A batch is kept") -> str:
    """Return a sentence that says why a batch is kept.

    Args:
        error: what is unreachable.
        what: the beginning of the sentence, where it is about something else.
    """
    if isinstance(error, Hold):
        return f"{what}, since what it needs is away: {error}"[:LENGTH]
    cause = getattr(error, "orig", None) or error
    return f"{what}, since the database is away: {' '.join(str(cause).split())}"[:LENGTH]


def lacked(error: Exception) -> str:
    """Return the label of what is unreachable; see `shared.bus.broker.standing.PartStatus`."""
    return error.lacks if isinstance(error, Hold) else "database"


class Batches:
    """Runs batches through a handler.

    Args:
        consumer: the name of the inbox.
        decode: from a delivery to what the handler is given.
        handle: the handler.
        stopping: set when the process stops; ends waiting for a dependency.
        standing: notified while a dependency is waited for.
        keyed: see `shared.bus.consume.subscription.Subscription`.

    Attributes:
        is_ours: whether this process still has the turn of its queue, checked in each transaction;
            see `single_active`.
    """

    def __init__(
        self,
        consumer: str,
        decode: Decode,
        handle: BatchHandler,
        stopping: threading.Event,
        standing: Standing,
        *,
        keyed: bool = False,
    ) -> None:
        self._consumer = consumer
        self._decode = decode
        self._handle = handle
        self._stopping = stopping
        self._standing = standing
        self._keyed = keyed
        self.is_ours: Callable[[Session], bool] = lambda _: True
        self._has_lost = threading.Event()

    def run(self, deliveries: Sequence[Delivery]) -> dict[int, Exception]:
        """Handle a batch and return an error for each delivery that is not done, by tag.

        Two of the errors are no failures: a delivery with `StoppedError` must go back to the queue
        unchanged, and one with `UnderWay` must be part of a later batch.
        """
        failed: dict[int, Exception] = {}
        understood: list[tuple[int, Received[Any]]] = []
        for delivery in deliveries:
            try:
                understood.append((delivery.tag, self._decode(delivery.incoming)))
            except Malformed as error:
                failed[delivery.tag] = error
            except Exception as error:  # noqa: BLE001 - no body may stop a consumer
                failed[delivery.tag] = Malformed(f"{type(error).__name__}: {error}")
        if understood:
            failures = self._settle([message for _, message in understood])
            failed |= {tag: failures[m.id] for tag, m in understood if m.id in failures}
        return failed

    def lose(self) -> None:
        """Stop holding messages: the broker was lost, and other processes are delivered them.

        A running transaction goes on. So does a handler with effects outside the database, which
        has to record those that have happened.
        """
        if not isinstance(self._handle, Remembering):
            self._has_lost.set()

    def lost(self) -> None:
        """Prepare for the next connection: all transactions of the last one have ended."""
        self._has_lost.clear()
        if isinstance(self._handle, Remembering):
            self._handle.lost()

    def happened(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Return the deliveries whose effect outside the database has happened; see `Remembering`.

        Args:
            deliveries: those that were under way.
        """
        if not isinstance(self._handle, Remembering):
            return []
        by_id = {self._decode(delivery.incoming).id: delivery for delivery in deliveries}
        return [by_id[id_] for id_ in self._handle.happened(by_id.keys())]

    def _settle(self, messages: Sequence[Received[Any]]) -> Failures:
        try:
            return self._persist(messages)
        except Exception as error:  # noqa: BLE001 - reported as the failure of the message
            if len({message.id for message in messages}) == 1:
                return {messages[0].id: error}
        failures: dict[UUID, Exception] = {}
        for number, message in enumerate(messages):
            failures |= self._settle([message])
            if isinstance(failures.get(message.id), StoppedError | Happened):
                return self._left(messages[number + 1 :]) | failures
        return failures

    def _persist(self, messages: Sequence[Received[Any]]) -> Failures:
        """Try until the database, and what the handler holds messages for, are reachable.

        Messages that are not held are committed by the first try that succeeds. Those still held
        when the process stops, or the broker is lost, are left.
        """
        pause = FIRST_PAUSE
        failures: dict[UUID, Exception] = {}
        why: Exception
        while not self._has_lost.is_set():
            try:
                failures |= self._once(messages)
                held = {id_ for id_, error in failures.items() if isinstance(error, Hold)}
                if all(isinstance(failures[id_], UnderWay) for id_ in held):
                    self._tell([failures[id_] for id_ in held])
                    return failures
                why = next(error for error in failures.values() if _holds(error))
                failures = {id_: error for id_, error in failures.items() if id_ not in held}
                if not held.issuperset(message.id for message in messages):
                    pause = FIRST_PAUSE
                messages = [message for message in messages if message.id in held]
            except Exception as error:
                if not (isinstance(error, Hold) or is_database_unavailable(error)):
                    self._standing.released()  # all is reachable: the message itself is at fault
                    raise
                why = error
            log.warning("holding", consumer=self._consumer, error=type(why).__name__, seconds=pause)
            self._standing.holding(held_by(why), lacked(why))
            if self._pause(pause):
                break
            pause = min(pause * 2, LONGEST_PAUSE)
        return failures | self._left(messages)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; return whether the process stops."""
        until = time.monotonic() + seconds
        while not self._has_lost.is_set() and (left := until - time.monotonic()) > 0:
            if self._stopping.wait(min(left, LOOK_SECONDS)):
                return True
        return False

    def _tell(self, under_way: Sequence[Exception]) -> None:
        for error in under_way:
            if lacks := lacked(error):
                return self._standing.holding(held_by(error), lacks)
        return self._standing.released()

    def _passes_inbox(self, message: Received[Any]) -> bool:
        return self._keyed and message.replay in AGAIN

    def _left(self, messages: Sequence[Received[Any]]) -> dict[UUID, Exception]:
        """Return the outcomes of messages that are given back without a commit."""
        ids = {message.id for message in messages}
        handle = self._handle
        happened = handle.happened(ids) if isinstance(handle, Remembering) else ()
        # The next consumer would not know that these were done if they just went back.
        note = Happened("it was done, and the database was away until the process stopped")
        return {id_: note if id_ in happened else StoppedError() for id_ in ids}

    def _once(self, messages: Sequence[Received[Any]]) -> Failures:
        # Of several with one id the first counts, unless another carries a note that it was done.
        backwards = messages[::-1]
        by_id = {m.id: m for m in backwards} | {m.id: m for m in backwards if m.happened}
        process_stopping.set(self._stopping)
        with transaction() as session:
            if not self.is_ours(session):
                return dict.fromkeys(by_id, StoppedError("another process has the queue's turn"))
            digests = commanded(by_id.values())
            new = inbox.claim(session, self._consumer, list(by_id), digests)
            wanted = {id_: said for id_, said in digests.items() if by_id[id_].replay != "done"}
            reused = inbox.reused(session, self._consumer, wanted)
            fresh = [
                m
                for m in messages
                if by_id[m.id] is m
                and (m.id in new or self._passes_inbox(m))
                and m.id not in reused
            ]
            fresh = [m for m in fresh if m.replay != "done"]
            if any(m.content_id and m.is_redelivered for m in fresh):
                last = inbox.last_without_id(session, self._consumer)
                fresh = [replace(m, is_repeat=_is_repeat(m, last)) for m in fresh]
            failures = (self._handle(session, fresh) or {}) if fresh else {}
            if failures:
                inbox.release(session, self._consumer, list(failures))
            for message in fresh:
                if message.content_id and message.id not in failures:
                    inbox.note_without_id(session, self._consumer, message.content_id)
        return {**failures, **dict.fromkeys(reused, Permanent(REUSED))}


def commanded(messages: Iterable[Received[Any]]) -> dict[UUID, bytes]:
    """Return a digest of the content, and of the person, of each message that is a command.

    Only commands have ids that their senders choose, so only they can reuse one. The same content
    from another person is another command. A command that a service or ops staff put back names no
    person, and is the same command.

    Returns:
        By message id: the SHA-256 of type and data, followed by that of the person where there is
        one. 32 or 64 bytes.
    """
    return {
        m.id: _digest(f"{m.type} ".encode() + encode(m.data))
        + (_digest(m.person.encode()) if m.person else b"")
        for m in messages
        if isinstance(m.data, Event) and m.data.EXCHANGE == topology.COMMANDS
    }


def _digest(said: bytes) -> bytes:
    return hashlib.sha256(said).digest()


def _holds(error: Exception) -> bool:
    return isinstance(error, Hold) and not isinstance(error, UnderWay)


def _is_repeat(message: Received[Any], last: UUID | None) -> bool:
    return message.is_redelivered and message.content_id is not None and message.content_id == last
