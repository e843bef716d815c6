"""Replay and discard dead letters.

Each batch takes three steps: the copies are confirmed on their target queue, the audit facts are
committed to the outbox, the dead letters are acknowledged. An interrupted action is simply run
again: nothing is lost, and repeated steps produce the same ids, so that the consumer's inbox drops
the second copy and the audit log the second fact.
"""

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from kombu import Connection
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.ops.audit.actions import Actor, commit_facts, unfit
from services.ops.broker.copying import copy
from services.ops.broker.hold import count, hold
from services.ops.broker.publishing import publish
from services.ops.broker.queue_lock import locked
from services.ops.dead_letters.authors import ORPHANED, Authorised, authors
from services.ops.dead_letters.facts import discarded, replayed
from services.ops.dead_letters.letter import Criteria, Letter
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology
from shared.bus.contract.headers import KEY_HEADER, REASON_HEADER, REASONS_HEADER, REPLAY_HEADER
from shared.bus.contract.message import Message
from shared.db.session import both_clocks
from shared.ids import derived_id

BATCH = 500
RESETTLE_TRIES = 5
RETURN_SECONDS = 0.3
"""How long to watch for acknowledged letters that return to the queue."""


@dataclass(slots=True)
class Progress:
    """Progress of an action on dead letters.

    Attributes:
        done: letters that were processed.
        passed: letters that were inspected and left, since they did not match.
        total: letters in the queue at the start; those beyond `hold.MOST` are not inspected.
        alone: false if another tool or consumer held messages of the queue, which were skipped.
        orphaned: matching letters that were left, since their author may not send them any more.
    """

    done: int = 0
    passed: int = 0
    total: int = 0
    alone: bool = True
    orphaned: int = 0


def missed(state: Progress, wanted: Criteria) -> list[str]:
    """Describe, in sentences, the letters that an action missed or may have missed.

    Args:
        state: the final progress.
        wanted: the criteria of the action.
    """
    sentences = []
    if state.orphaned:
        sentences.append(f"{state.orphaned:,} left: {ORPHANED}")
    if unseen := state.total - state.done - state.passed:
        sentences.append(f"{unseen:,} were not looked at.")
    if not state.alone:
        sentences.append(
            "Somebody else is at work there: what they had in hand was missed. Do it again."
        )
    if (gone := len(wanted.ids) - state.done - state.orphaned) > 0:
        where = "there" if state.alone and not unseen else "found"
        sentences.append(f"{gone:,} of those named were not {where}.")
    return sentences


OnProgress = Callable[[Progress], None]


class Selection(Protocol):
    """Selects letters; `Criteria` is one."""

    def match(self, letter: Letter, *clocks: datetime) -> bool:
        """Return whether a letter is selected, at the time by each of the clocks."""


def replay(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    criteria: Criteria,
    actor: Actor,
    *,
    progress: OnProgress = lambda _: None,
) -> Progress:
    """Return letters to their work queue, with their attempts reset.

    A copy still counts as its author's. A command whose author may not give it any more therefore
    stays a dead letter (`Progress.orphaned`).

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        engine: the database for the audit facts.
        queue: the work queue.
        criteria: selects the letters; all of them if empty.
        actor: the operator.
        progress: called after each batch.

    Raises:
        NotPublishedError: the broker did not take a batch; earlier batches stay done.
        sqlalchemy.exc.DBAPIError: the database is unreachable; earlier batches stay done.
    """

    def act(letters: Sequence[Letter]) -> list[Message]:
        user = user_of(connection)
        publish(connection, queue.name, [copy_of(letter, user, actor) for letter in letters])
        return [replayed(letter, actor) for letter in letters]

    selection = Authorised(criteria, authors(engine, queue))

    def report(so_far: Progress) -> None:
        progress(so_far)
        # A user may be removed between two batches.
        selection.authors = authors(engine, queue)

    state = settle(connection, engine, queue, selection, act, report)
    state.orphaned = len(selection.orphaned)
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
    """Discard letters. The journal keeps their messages for its seven days.

    Args:
        connection: an open kombu connection.
        engine: the database for the audit facts.
        queue: the work queue.
        criteria: selects the letters; all of them if empty.
        actor: the operator.
        reason: why; kept in the audit log.
        progress: called after each batch.

    Raises:
        ValueError: the reason is unfit.
        sqlalchemy.exc.DBAPIError: the database is unreachable; earlier batches stay done.
    """
    if wrong := unfit(reason):
        raise ValueError(f"the reason {wrong}")

    def act(letters: Sequence[Letter]) -> list[Message]:
        return [discarded(letter, actor, reason.strip()) for letter in letters]

    return settle(connection, engine, queue, criteria, act, progress)


def settle(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    criteria: Selection,
    act: Callable[[Sequence[Letter]], list[Message]],
    progress: OnProgress = lambda _: None,
) -> Progress:
    """Process letters and acknowledge them, batch by batch.

    Args:
        connection: an open kombu connection.
        engine: the database for the audit facts.
        queue: the work queue.
        criteria: selects the letters.
        act: processes a batch and returns its audit facts; may be called twice for a letter.
        progress: called after each batch.

    Raises:
        Exception: raised by `act`; earlier batches stay done.
        sqlalchemy.exc.DBAPIError: the database is unreachable; earlier batches stay done.
    """
    with Session(engine) as session:
        clocks = both_clocks(session)  # a discarded letter cannot be restored
    state = Progress()
    settled: set[UUID] = set()
    # The lock also covers the letters that return after their acknowledgement.
    with locked(queue.dead):
        with hold(connection, queue.dead) as held:
            state.alone, state.total = held.alone, held.ready
            while messages := held.take(BATCH):
                letters = _by_tag(connection, queue, messages, state.done + state.passed)
                matching = {tag: x for tag, x in letters.items() if criteria.match(x, *clocks)}
                if matching:
                    commit_facts(engine, act(list(matching.values())))
                    held.settle(matching)
                    settled |= {_identity(letter) for letter in matching.values()}
                state.done += len(matching)
                state.passed += len(letters) - len(matching)
                progress(state)
        _settle_returned(connection, queue, settled, held.remaining)
    return state


def _settle_returned(
    connection: Connection, queue: topology.Queue, settled: Collection[UUID], expected: int
) -> None:
    """Acknowledge again the letters that returned to the queue despite their acknowledgement.

    A quorum queue under load defers acknowledgements, and drops the deferred ones when the channel
    closes.
    """
    for _ in range(RESETTLE_TRIES):
        if not settled or not _have_returned(connection, queue, expected):
            return
        with hold(connection, queue.dead) as held:
            returned: list[int] = []
            while messages := held.take(BATCH):
                letters = _by_tag(connection, queue, messages, 0)
                returned += [tag for tag, letter in letters.items() if _identity(letter) in settled]
            held.settle(returned)
        if not returned:
            return  # the surplus is letters that died meanwhile


def _have_returned(connection: Connection, queue: topology.Queue, expected: int) -> bool:
    """Return whether the queue has more letters than expected; it takes them back with a delay."""
    deadline = time.monotonic() + RETURN_SECONDS
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


def _identity(letter: Letter) -> UUID:
    """Return an id that differs for a redacted copy that took the letter's place."""
    headers = letter.incoming.headers
    reasons = [repr(headers.get(name)) for name in (REASON_HEADER, REASONS_HEADER)]
    body = hashlib.sha256(letter.incoming.body).hexdigest()
    return derived_id("letter as it was", letter.death, body, *reasons)


def copy_of(
    letter: Letter, publisher: str, actor: Actor, body: bytes | None = None, type_: str = ""
) -> Any:
    """Return the copy that replays a letter.

    With the original body it counts as the original sender's, and is held to that sender's rights;
    with another body it counts as the actor's.

    Args:
        letter: the letter.
        publisher: the broker user that publishes the copy.
        actor: the operator.
        body: a new body; None for the original one.
        type_: the type that the new body has.
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
        # Nothing has been done yet for a new body; only "handle it again" still applies.
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
