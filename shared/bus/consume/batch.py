"""A batch in one transaction: what the inbox knows is skipped; a poison message harms nobody."""

import hashlib
import threading
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
from shared.bus.contract.delivery import Incoming
from shared.bus.contract.errors import Happened, Hold, Malformed, Permanent, UnderWay
from shared.bus.contract.events import Event, encode
from shared.bus.contract.message import Received
from shared.db.session import is_database_away, transaction
from shared.telemetry import tracing

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between tries while something is away

E = TypeVar("E", bound=Event)
Failures = Mapping[UUID, Exception]
BatchHandler = Callable[[Session, Sequence[Received[Any]]], Failures | None]
Handler = Callable[[Session, Received[E]], None]
Decode = Callable[[Incoming], Received[Any]]

process_stopping: ContextVar[threading.Event] = ContextVar(
    "process_stopping",
    default=threading.Event(),  # noqa: B039 - nobody sets it
)
"""For a handler that takes its time: set when the process stops, which gives it a few seconds."""

log = structlog.get_logger()


@runtime_checkable
class Remembering(Protocol):
    """A batch handler with effects outside the database, which knows what it has done."""

    def happened(self, ids: Collection[UUID]) -> Collection[UUID]:
        """Those of these messages whose effect has happened, whether it is written down or not.

        Asked when the process stops: what has begun may be waited for, a few seconds in all.
        """

    def lost(self) -> None:
        """Told that no message is in hand any more: what is under way comes again, to whomever."""


AGAIN = ("again", "unnamed")
"""How a copy is taken that is handled although the inbox may know it; see `Replay`."""


REUSED = (
    "another command was carried out under this message_id, or the same for another person, within "
    "the last 30 days: send this one again under an id of its own"
)
"""Of a command; see `inbox.reused`."""


class StoppedError(Exception):
    """As what became of a message: the process stopped before, so it goes back to the queue."""


class Delivery(NamedTuple):
    """One delivery in hand.

    Attributes:
        tag: the delivery tag, to acknowledge by.
        incoming: what came.
    """

    tag: int
    incoming: Incoming


def each(handlers: Mapping[type[Event], Handler[Any]]) -> BatchHandler:
    """A batch handler that calls a plain handler for each message, by the type of its data.

    A type without a handler is done, with no effect.
    """

    def handle(session: Session, messages: Sequence[Received[Any]]) -> None:
        for message in messages:
            handler = handlers.get(type(message.data))
            if handler is not None:
                with tracing.under(message.traceparent):
                    handler(session, message)

    return handle


def held_by(error: Exception, what: str = "A batch is kept") -> str:
    """Why a batch is kept, or what else is done instead of working, in a sentence."""
    if isinstance(error, Hold):
        return f"{what}, since what it needs is away: {error}"[:LENGTH]
    cause = getattr(error, "orig", None) or error
    return f"{what}, since the database is away: {' '.join(str(cause).split())}"[:LENGTH]


def lacked(error: Exception) -> str:
    """What is away, in a word; see `shared.bus.broker.standing.Told`."""
    return error.lacks if isinstance(error, Hold) else "database"


class Batches:
    """Runs batches through a handler.

    Args:
        consumer: whose inbox.
        decode: from what came to what the handler sees.
        handle: what is to be done.
        stopping: set when the process stops; ends waiting for what is away.
        standing: told of waiting for what is away.
        keyed: see `shared.bus.consume.subscription.Subscription`.
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

    def run(self, deliveries: Sequence[Delivery]) -> dict[int, Exception]:
        """Handle a batch; returns why deliveries failed, by tag. Those not named are done.

        Those with a `StoppedError` have not failed: they must go back to the queue as they are. Nor
        have those that are `UnderWay`: they must be part of a later batch.
        """
        failed: dict[int, Exception] = {}
        understood: list[tuple[int, Received[Any]]] = []
        for delivery in deliveries:
            try:
                understood.append((delivery.tag, self._decode(delivery.incoming)))
            except Malformed as error:
                failed[delivery.tag] = error
            except Exception as error:  # noqa: BLE001 - a body must not be able to stop a consumer
                failed[delivery.tag] = Malformed(f"{type(error).__name__}: {error}")
        if understood:
            failures = self._settle([message for _, message in understood])
            failed |= {tag: failures[m.id] for tag, m in understood if m.id in failures}
        return failed

    def lost(self) -> None:
        """Nothing is in hand any more: the broker was lost."""
        if isinstance(self._handle, Remembering):
            self._handle.lost()

    def happened(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those whose effect outside the database has happened; see `Remembering`.

        Args:
            deliveries: which were under way once.
        """
        if not isinstance(self._handle, Remembering):
            return []
        by_id = {self._decode(delivery.incoming).id: delivery for delivery in deliveries}
        return [by_id[id_] for id_ in self._handle.happened(by_id.keys())]

    def _settle(self, messages: Sequence[Received[Any]]) -> Failures:
        try:
            return self._persist(messages)
        except Exception as error:  # noqa: BLE001 - any failure is the message's, and is reported
            if len({message.id for message in messages}) == 1:
                return {messages[0].id: error}
        failures: dict[UUID, Exception] = {}
        for number, message in enumerate(messages):
            failures |= self._settle([message])
            if isinstance(failures.get(message.id), StoppedError | Happened):
                return self._left(messages[number + 1 :]) | failures
        return failures

    def _persist(self, messages: Sequence[Received[Any]]) -> Failures:
        """Try until neither the database nor what the handler holds for is away.

        What is not held is committed meanwhile, and not tried again; what is held when the process
        stops is left.
        """
        pause = FIRST_PAUSE
        failures: dict[UUID, Exception] = {}
        why: Exception
        while True:
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
                if not (isinstance(error, Hold) or is_database_away(error)):
                    self._standing.released()  # nothing is away: it is the message's own fault
                    raise
                why = error
            log.warning("holding", consumer=self._consumer, error=type(why).__name__, seconds=pause)
            self._standing.holding(held_by(why), lacked(why))
            if self._stopping.wait(pause):
                return failures | self._left(messages)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _tell(self, under_way: Sequence[Exception]) -> None:
        for error in under_way:
            if lacks := lacked(error):
                return self._standing.holding(held_by(error), lacks)
        return self._standing.released()

    def _passes_inbox(self, message: Received[Any]) -> bool:
        return self._keyed and message.replay in AGAIN

    def _left(self, messages: Sequence[Received[Any]]) -> dict[UUID, Exception]:
        """What is said of messages that the process has to leave, of which nothing is committed."""
        ids = {message.id for message in messages}
        handle = self._handle
        happened = handle.happened(ids) if isinstance(handle, Remembering) else ()
        # Who comes next would not know of it if these just went back.
        note = Happened("it was done, and the database was away until the process stopped")
        return {id_: note if id_ in happened else StoppedError() for id_ in ids}

    def _once(self, messages: Sequence[Received[Any]]) -> Failures:
        # Of several with one id the first counts, and before it one that knows what has happened.
        backwards = messages[::-1]
        by_id = {m.id: m for m in backwards} | {m.id: m for m in backwards if m.happened}
        process_stopping.set(self._stopping)
        with transaction() as session:
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
    """What those of these messages say that are commands, whose ids their senders give them.

    All others' ids are ours, and say what the message says. Who says it is part of it: two persons
    are two, whatever ids they use. What comes by way of a service, or of ops staff who put it back,
    names nobody, and is the same command.
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
