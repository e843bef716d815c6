"""Putting dead letters right: replayed, edited, discarded; and "retry now" for the retry ladder.

In this order, and again from the start when it is broken off anywhere: the copy is confirmed on its
target; the audit fact is committed to the outbox; the dead letter is acknowledged. So nothing is
lost, and what is done twice has the same ids: the consumer's inbox drops the second copy, and the
audit log's the second fact.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import msgspec
from kombu import Connection
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, tell
from services.ops.broker.copying import copy
from services.ops.broker.hold import count, hold
from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import turn
from services.ops.dead_letters.authors import ORPHANED, Authorised, authors
from services.ops.dead_letters.facts import discarded, replayed
from services.ops.dead_letters.letter import Criteria, Letter
from services.ops.dead_letters.search import find
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology
from shared.bus.contract.events import (
    EVENT_TYPES,
    Event,
    decode,
)
from shared.bus.contract.headers import KEY_HEADER, REASON_HEADER, REASONS_HEADER, REPLAY_HEADER
from shared.bus.contract.message import Message
from shared.db.session import both_clocks
from shared.ids import derived_id

BATCH = 500
SETTLE_AGAIN = 5
COME_BACK_SECONDS = 0.3
"""How long to look whether acknowledged letters come back all the same."""


class NotEditableError(Exception):
    """The new body does not do; the sentence says why."""


class DiedAgainError(Exception):
    """The letter is another than the one that was looked at."""

    def __init__(self) -> None:
        super().__init__("It has died again since it was looked at: look at it again.")


@dataclass(slots=True)
class Progress:
    """How far an action is.

    Attributes:
        done: letters that were dealt with.
        passed: letters that were looked at and left, since they were not meant.
        total: letters that were in the queue when it began. Those beyond `hold.MOST` that were
            left were not looked at.
        alone: false when somebody else was at work in the queue: what they had in hand was missed.
        orphaned: among those that were left: what nobody may say any more who has said it.
    """

    done: int = 0
    passed: int = 0
    total: int = 0
    alone: bool = True
    orphaned: int = 0


def missed(state: Progress, wanted: Criteria) -> list[str]:
    """What was meant, or may have been, and was not done: in sentences.

    Args:
        state: at the end.
        wanted: what was meant.
    """
    said = []
    if state.orphaned:
        said.append(f"{state.orphaned:,} left: {ORPHANED}")
    if unseen := state.total - state.done - state.passed:
        said.append(f"{unseen:,} were not looked at.")
    if not state.alone:
        said.append(
            "Somebody else is at work there: what they had in hand was missed. Do it again."
        )
    if (gone := len(wanted.ids) - state.done - state.orphaned) > 0:
        where = "there" if state.alone and not unseen else "found"
        said.append(f"{gone:,} of those named were not {where}.")
    return said


OnProgress = Callable[[Progress], None]


class Meant(Protocol):
    """Which letters are meant; `Criteria` is one."""

    def match(self, letter: Letter, *clocks: datetime) -> bool:
        """Whether a letter is meant, at a time, by each clock that there is to go by."""


def replay(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    criteria: Criteria,
    actor: Actor,
    *,
    progress: OnProgress = lambda _: None,
) -> Progress:
    """Put letters back into their work queue, as they were before they were ever tried.

    They stay their authors': a command of somebody who may not give it any more stays a dead letter
    (`Progress.orphaned`), since it would count as theirs.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        engine: where the audit facts go.
        queue: the work queue.
        criteria: which of its dead letters; all of them when it is empty.
        actor: who wants it.
        progress: called after each batch.

    Raises:
        NotPublishedError: the broker did not take a batch; what was done before stays done.
        sqlalchemy.exc.DBAPIError: the database is away; the same.
    """

    def act(letters: Sequence[Letter]) -> list[Message]:
        user = user_of(connection)
        publish(connection, queue.name, [copy_of(letter, user, actor) for letter in letters])
        return [replayed(letter, actor) for letter in letters]

    meant = Authorised(criteria, authors(engine, queue))

    def go_on(so_far: Progress) -> None:
        progress(so_far)
        meant.authors = authors(engine, queue)  # who may be gone by the next batch

    state = settle(connection, engine, queue, meant, act, go_on)
    state.orphaned = len(meant.orphaned)
    return state


def discard(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    criteria: Criteria,
    actor: Actor,
    reason: str,
    *,
    progress: OnProgress = lambda _: None,
) -> Progress:
    """Throw letters away. What they said stays in the journal for its seven days.

    Args:
        connection: an open kombu connection.
        engine: where the audit facts go.
        queue: the work queue.
        criteria: which of its dead letters; all of them when it is empty.
        actor: who wants it.
        reason: why; kept in the audit log.
        progress: called after each batch.

    Raises:
        ValueError: there is no reason.
        sqlalchemy.exc.DBAPIError: the database is away; what was done before stays done.
    """
    if not reason.strip():
        raise ValueError("a discarded letter needs a reason")

    def act(letters: Sequence[Letter]) -> list[Message]:
        return [discarded(letter, actor, reason.strip()) for letter in letters]

    return settle(connection, engine, queue, criteria, act, progress)


def edit(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    message_id: str,
    body: bytes,
    actor: Actor,
    *,
    death: UUID | None = None,
    type: str = "",  # noqa: A002 - the property's name
) -> bool:
    """Put one letter back with another body, under the same id.

    Args:
        connection: an open kombu connection.
        engine: where the audit fact goes.
        queue: the work queue.
        message_id: of the letter.
        body: the new one, JSON in UTF-8.
        actor: who wants it.
        death: `Letter.death` of the one that was looked at; None: whichever lies there.
        type: the message's type, where the letter has none or a wrong one.

    Returns:
        False when no such letter is there (any more).

    Raises:
        NotEditableError: nothing was done, as the body would not be understood either.
        DiedAgainError: nothing was done, as the message was put back since, and has died again.
        NotPublishedError: the broker did not take it.
    """
    letter = find(connection, queue, message_id)
    if letter is None:
        return False
    if death not in (None, letter.death):
        raise DiedAgainError
    type_ = type or letter.type
    validate(queue, type_, body)

    def act(letters: Sequence[Letter]) -> list[Message]:
        user = user_of(connection)
        copies = [copy_of(letter, user, actor, body, type_) for letter in letters]
        publish(connection, queue.name, copies)
        return [replayed(letter, actor, body) for letter in letters]

    wanted = Criteria(ids=frozenset({message_id}), as_of=letter.failed_at)
    return settle(connection, engine, queue, wanted, act).done > 0


def types_for(queue: topology.Queue) -> tuple[str, ...]:
    """The types of message that a work queue is for."""
    return tuple(sorted(type_ for type_, event in EVENT_TYPES.items() if _takes(queue, event)))


def validate(queue: topology.Queue, type_: str, body: bytes) -> Event:
    """The data of a body, decoded as the queue's consumer would.

    Raises:
        NotEditableError: it would be refused; the sentence says why.
    """
    event = EVENT_TYPES.get(type_)
    if event is None or not _takes(queue, event):
        raise NotEditableError(
            f"{queue.name} takes no {type_ or 'message without a type'!r}: "
            f"give one of {', '.join(types_for(queue))} as its type"
        )
    try:
        return decode(type_, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotEditableError(f"This is no {type_}: {error}") from None


def _takes(queue: topology.Queue, event: type[Event]) -> bool:
    lanes = ("", topology.BULK)
    return any(topology.takes(queue, event.EXCHANGE, lane + event.TYPE) for lane in lanes)


def settle(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    criteria: Meant,
    act: Callable[[Sequence[Letter]], list[Message]],
    progress: OnProgress = lambda _: None,
) -> Progress:
    """Deal with letters and acknowledge them, a batch at a time.

    Args:
        connection: an open kombu connection.
        engine: where the audit facts go.
        queue: the work queue.
        criteria: which of its dead letters.
        act: deals with a batch, and returns its audit facts; may be called again with the same.
        progress: called after each batch.

    Raises:
        Exception: of `act`; what was done before stays done.
        sqlalchemy.exc.DBAPIError: the database is away; the same.
    """
    with Session(engine) as session:
        clocks = both_clocks(session)  # what is gone does not come back
    state = Progress()
    settled: set[UUID] = set()
    # Until what comes back is settled as well.
    with turn(queue.dead):
        with hold(connection, queue.dead) as held:
            state.alone, state.total = held.alone, held.ready
            while messages := held.take(BATCH):
                letters = _by_tag(connection, queue, messages, state.done + state.passed)
                meant = {tag: x for tag, x in letters.items() if criteria.match(x, *clocks)}
                if meant:
                    tell(engine, act(list(meant.values())))
                    held.settle(meant)
                    settled |= {_as_it_was(letter) for letter in meant.values()}
                state.done += len(meant)
                state.passed += len(letters) - len(meant)
                progress(state)
        _settle_again(connection, queue, settled, held.remaining)
    return state


def _settle_again(
    connection: Connection, queue: topology.Queue, settled: Collection[UUID], expected: int
) -> None:
    """Acknowledge again what has come back although it was.

    A quorum queue under load puts acknowledgements off, and forgets those when the channel closes.
    """
    for _ in range(SETTLE_AGAIN):
        if not settled or not _come_back(connection, queue, expected):
            return
        with hold(connection, queue.dead) as held:
            again: list[int] = []
            while messages := held.take(BATCH):
                letters = _by_tag(connection, queue, messages, 0)
                again += [tag for tag, letter in letters.items() if _as_it_was(letter) in settled]
            held.settle(again)
        if not again:
            return  # others have died meanwhile


def _come_back(connection: Connection, queue: topology.Queue, expected: int) -> bool:
    """Whether more is there than should be. It takes the queue a moment to have it back."""
    deadline = time.monotonic() + COME_BACK_SECONDS
    while count(connection, queue.dead) <= expected:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _by_tag(
    connection: Connection, queue: topology.Queue, messages: Sequence[Any], position: int
) -> dict[int, Letter]:
    user = user_of(connection)
    return {
        message.delivery_info["delivery_tag"]: Letter.of(queue, message, number, user)
        for number, message in enumerate(messages, position)
    }


def _as_it_was(letter: Letter) -> UUID:
    """What tells it from a copy that was put back in its place with something left out."""
    headers = letter.incoming.headers
    said = [repr(headers.get(name)) for name in (REASON_HEADER, REASONS_HEADER)]
    body = hashlib.sha256(letter.incoming.body).hexdigest()
    return derived_id("letter as it was", letter.death, body, *said)


def copy_of(
    letter: Letter, publisher: str, actor: Actor, body: bytes | None = None, type_: str = ""
) -> Any:
    """The copy by which a letter is replayed.

    With its own body it is still its first sender's, and may be no more than they may say; with
    another, theirs who has written that.

    Args:
        letter: the letter.
        publisher: who publishes the copy.
        actor: who wants it.
        body: another body.
        type_: the type with that.
    """
    properties = {"message_id": letter.message_id}
    if body is None:
        return copy(
            letter.incoming,
            publisher,
            user=letter.user,
            person=letter.person,
            properties=properties,
        )
    taken_as = letter.incoming.taken_as
    taken_as.pop(KEY_HEADER, None)
    if body != letter.incoming.body:
        # Of another body nothing has happened and nothing is done; it is still handled again.
        is_again = letter.incoming.replay == "again"
        taken_as = {REPLAY_HEADER: "again"} if is_again else {}
    return copy(
        letter.incoming,
        publisher,
        taken_as=taken_as,
        user=publisher,
        person=actor.name if actor.name != publisher else "",
        body=body,
        properties=properties | ({"type": type_} if type_ else {}),
    )
