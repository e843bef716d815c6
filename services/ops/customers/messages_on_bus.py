"""A customer's data on the bus: dead letters, the retry ladder, and what waits where nobody works.

The copy without the person is confirmed, then the audit fact is committed, then the original is
acknowledged: broken off anywhere and begun again, nothing is lost.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor
from services.ops.broker.hold import BusyError, Hold, See, as_it_is, count, hold, look_through
from services.ops.broker.publishing import publish
from services.ops.customers.erasure import Left, Person, without
from services.ops.dead_letters import actions
from services.ops.dead_letters.facts import discarded
from services.ops.dead_letters.letter import Letter
from shared import erased
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.copies import again
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.headers import FAILED_AT_HEADER, REASON_HEADER
from shared.bus.contract.message import Message

BATCH = 500
PASSED_BY = (topology.ORDERS_INTAKE, topology.NOTIFIER_ORDERS, topology.NOTIFIER_BULK)
"""The work queues that customers' data passes through; the others are about businesses."""


@dataclass(frozen=True, slots=True)
class Found:
    """A message that a customer is in.

    Attributes:
        place: the queue: `orders.intake`, `retry.30s`, `notifier.orders.dead`.
        queue: the work queue that it is for.
        message_id: its id.
        type: its type.
        body: as text.
        reason: why it waits, where it failed.
    """

    place: str
    queue: str
    message_id: str
    type: str
    body: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What was found, or done.

    Attributes:
        places: how many messages or rows, by place.
        unseen: how many messages of a queue nobody could look at, since somebody has them in hand,
            or they lie behind what can be looked through.
        is_being_written: whether a transaction goes on that may have written more.
    """

    places: Counter[str] = field(default_factory=Counter)
    unseen: dict[str, int] = field(default_factory=dict)
    is_being_written: bool = False


def find(connection: Connection, person: Person) -> tuple[list[Found], Outcome]:
    """What mentions a customer; nothing is changed.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        person: who.
    """
    found: list[Found] = []
    outcome = Outcome()

    def look(incoming: Incoming, place: str, queue: str) -> None:
        if without(incoming, _type(incoming), person) is not None:
            found.append(_found(incoming, place, queue))
            outcome.places[place] += 1

    for queue in topology.WORK_QUEUES:
        with hold(connection, queue.dead) as held:
            for message in _all(held):
                look(Incoming.of(message), queue.dead, queue.name)
        _tell_busy(held, queue.dead, outcome)
    for rung in topology.RETRY_LADDER:
        with hold(connection, rung.name) as held:
            for message in _all(held):
                look(Incoming.of(message), rung.name, message.delivery_info["routing_key"])
        _tell_busy(held, rung.name, outcome)
    for queue in PASSED_BY:

        def see(incoming: Incoming, publisher: str, name: str = queue.name) -> AmqpMessage:
            look(incoming, name, name)
            return as_it_is(incoming, publisher)

        _look_through(connection, queue.name, see, outcome)
    return found, outcome


def erase(
    connection: Connection, engine: Engine, person: Person, actor: Actor, reason: str
) -> Outcome:
    """Take a customer out of what waits on the bus.

    What would have been emailed to the person is discarded, each dead letter with an audit fact.
    Dead letters go back as dead letters; what was on the retry ladder goes back to its queue.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        engine: where the audit facts go.
        person: who.
        actor: who wants it.
        reason: why; kept in the audit log.

    Raises:
        NotPublishedError: the broker did not take a batch; what was done before stays done.
        sqlalchemy.exc.DBAPIError: the database is away; the same.
    """
    outcome = Outcome()
    for queue in topology.WORK_QUEUES:
        _clear_dead(connection, engine, queue, person, actor, reason, outcome)
    for rung in topology.RETRY_LADDER:
        with hold(connection, rung.name) as held:
            while messages := held.take(BATCH):
                _clear_rung(connection, held, messages, person, rung.name, outcome)
        _tell_busy(held, rung.name, outcome)
    for queue in PASSED_BY:

        def clear(incoming: Incoming, publisher: str, name: str = queue.name) -> AmqpMessage | None:
            left = without(incoming, _type(incoming), person)
            if left is None:
                return as_it_is(incoming, publisher)
            outcome.places[name] += 1
            if left.body is None:
                return None
            return _copy(incoming, incoming.user_id, publisher, left)

        _look_through(connection, queue.name, clear, outcome)
    return outcome


@dataclass(frozen=True, slots=True)
class _Mentioning:
    """Letters that a person is in; see `actions.Meant`."""

    person: Person

    def match(self, letter: Letter, *_: datetime) -> bool:
        return without(letter.incoming, letter.type, self.person) is not None


def _clear_dead(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    person: Person,
    actor: Actor,
    reason: str,
    outcome: Outcome,
) -> None:
    def act(letters: Sequence[Letter]) -> list[Message]:
        publisher = user_of(connection)
        copies = []
        facts = []
        for letter in letters:
            left = without(letter.incoming, letter.type, person)
            if left is None or left.body is None:
                facts.append(discarded(letter, actor, reason))
                continue
            # The broker's own note on the death does not go with a copy.
            said = person.mention.sub(erased.TEXT, letter.reason)
            headers = {REASON_HEADER: said} | left.headers
            if letter.failed_at is not None:
                headers[FAILED_AT_HEADER] = letter.failed_at.isoformat()
            left = replace(left, headers=headers)
            copies.append(_copy(letter.incoming, letter.user, publisher, left))
        publish(connection, queue.dead, copies)
        return facts

    done = actions.settle(connection, engine, queue, _Mentioning(person), act)
    if done.done:
        outcome.places[queue.dead] += done.done
    if not done.alone or done.total > done.done + done.passed:
        outcome.unseen[queue.dead] = done.total - done.done - done.passed


def _clear_rung(
    connection: Connection,
    held: Hold,
    messages: Sequence[Any],
    person: Person,
    rung: str,
    outcome: Outcome,
) -> None:
    publisher = user_of(connection)
    settled = []
    copies: dict[str, list[AmqpMessage]] = {}
    for message in messages:
        queue = str(message.delivery_info["routing_key"])
        incoming = Incoming.of(message, believed(queue, publisher))
        left = without(incoming, _type(incoming), person)
        if left is None:
            continue
        settled.append(message.delivery_info["delivery_tag"])
        if left.body is not None:
            copy = _copy(incoming, incoming.user_id, publisher, left)
            copies.setdefault(queue, []).append(copy)
    for queue, waiting in copies.items():
        publish(connection, queue, waiting)
    held.settle(settled)
    if settled:
        outcome.places[rung] += len(settled)


def _copy(incoming: Incoming, user: str | None, publisher: str, left: Left) -> AmqpMessage:
    copy = again(incoming, user, publisher, left.headers)
    copy.body = left.body
    return copy


def _all(held: Hold) -> Iterator[Any]:
    while messages := held.take(BATCH):
        yield from messages


def _tell_busy(held: Hold, queue: str, outcome: Outcome) -> None:
    if not held.alone or held.unseen:
        outcome.unseen[queue] = held.unseen


def _look_through(connection: Connection, queue: str, see: See, outcome: Outcome) -> None:
    try:
        look_through(connection, queue, see)
    except BusyError:
        outcome.unseen[queue] = count(connection, queue)


def _type(incoming: Incoming) -> str:
    return str(incoming.properties.get("type") or "")


def _found(incoming: Incoming, place: str, queue: str) -> Found:
    return Found(
        place=place,
        queue=queue,
        message_id=str(incoming.properties.get("message_id") or ""),
        type=_type(incoming),
        body=incoming.body.decode(errors="backslashreplace"),
        reason=str(incoming.headers.get(REASON_HEADER) or ""),
    )
