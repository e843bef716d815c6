"""A customer's data on the bus: dead letters, the retry ladder, work queues without consumers.

Redacted copies are confirmed first, then the audit facts are committed, then the originals are
acknowledged. An interrupted run is simply repeated; nothing is lost.
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
from services.ops.broker.hold import (
    BusyError,
    QueueHold,
    Visitor,
    count,
    hold,
    limit_trust,
    scan,
    verbatim_copy,
)
from services.ops.broker.publishing import publish
from services.ops.customers.erasure import Person, Remainder, redacted
from services.ops.dead_letters import actions
from services.ops.dead_letters.facts import discarded
from services.ops.dead_letters.letter import Letter
from shared import erased
from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import user_of
from shared.bus.consume.copies import again
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.headers import FAILED_AT_HEADER, REASON_HEADER
from shared.bus.contract.message import Message

BATCH = 500
_WORK = frozenset(queue.name for queue in topology.WORK_QUEUES)
CUSTOMER_QUEUES = (topology.ORDERS_INTAKE, topology.NOTIFIER_ORDERS, topology.NOTIFIER_BULK)
"""The work queues with customers' data; the others are about businesses."""


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """A message with a customer's data.

    Attributes:
        place: its queue: `orders.intake`, `retry.30s`, `notifier.orders.dead`.
        queue: the work queue that it is for.
        message_id: its id.
        type: its type.
        body: its body as text.
        reason: the reason of its last failure; empty if it did not fail.
    """

    place: str
    queue: str
    message_id: str
    type: str
    body: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What was found, or erased.

    Attributes:
        places: the number of messages or rows, by place.
        unseen: by queue, the number of messages that could not be read, since they are
            unacknowledged elsewhere or beyond `hold.MOST`.
        is_being_written: whether an open transaction may have written more.
    """

    places: Counter[str] = field(default_factory=Counter)
    unseen: dict[str, int] = field(default_factory=dict)
    is_being_written: bool = False


def find(connection: Connection, person: Person) -> tuple[list[FoundMessage], Outcome]:
    """Find the messages with a customer's data; nothing is changed.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        person: the customer.
    """
    found: list[FoundMessage] = []
    outcome = Outcome()

    def note(incoming: RawDelivery, place: str, queue: str) -> None:
        if redacted(incoming, _type(incoming), person) is not None:
            found.append(_found(incoming, place, queue))
            outcome.places[place] += 1

    for queue in topology.WORK_QUEUES:
        with hold(connection, queue.dead) as held:
            for message in _all(held):
                note(RawDelivery.of(message), queue.dead, queue.name)
        _note_unseen(held, queue.dead, outcome)
    for delay in topology.RETRY_DELAYS:
        with hold(connection, delay.name) as held:
            for message in _all(held):
                note(RawDelivery.of(message), delay.name, message.delivery_info["routing_key"])
        _note_unseen(held, delay.name, outcome)
    for part in _customer_queues(connection):

        def see(incoming: RawDelivery, publisher: str, name: str = part) -> AmqpMessage:
            note(incoming, name, topology.whole(name))
            return verbatim_copy(incoming, publisher)

        _scan(connection, part, see, outcome)
    return found, outcome


def erase(
    connection: Connection, engine: Engine, person: Person, actor: Actor, reason: str
) -> Outcome:
    """Erase a customer from the messages on the bus.

    Facts that would be emailed to the customer are dropped, each dead letter with an audit fact.
    Redacted dead letters stay dead letters; redacted messages on the retry ladder return to their
    work queue.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        engine: the database for the audit facts.
        person: the customer.
        actor: the operator.
        reason: why; kept in the audit log.

    Raises:
        NotPublishedError: the broker did not take a batch; earlier batches stay done.
        sqlalchemy.exc.DBAPIError: the database is unreachable; earlier batches stay done.
    """
    outcome = Outcome()
    for queue in topology.WORK_QUEUES:
        _clear_dead(connection, engine, queue, person, actor, reason, outcome)
    for delay in topology.RETRY_DELAYS:
        with hold(connection, delay.name) as held:
            while messages := held.take(BATCH):
                _clear_delayed(connection, held, messages, person, delay.name, outcome)
        _note_unseen(held, delay.name, outcome)
    for part in _customer_queues(connection):

        def clear(incoming: RawDelivery, publisher: str, name: str = part) -> AmqpMessage | None:
            left = redacted(incoming, _type(incoming), person)
            if left is None:
                return verbatim_copy(incoming, publisher)
            outcome.places[name] += 1
            if left.body is None:
                return None
            return _copy(incoming, incoming.user_id, publisher, left)

        _scan(connection, part, clear, outcome)
    return outcome


@dataclass(frozen=True, slots=True)
class _Mentioning:
    """Selects the letters with a customer's data; an `actions.Selection`."""

    person: Person

    def match(self, letter: Letter, *_: datetime) -> bool:
        return redacted(letter.incoming, letter.type, self.person) is not None


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
            left = redacted(letter.incoming, letter.type, person)
            if left is None or left.body is None:
                facts.append(discarded(letter, actor, reason))
                continue
            # The broker's x-death does not survive copying, so its reason and time move to headers.
            reason_header = person.mention.sub(erased.TEXT, letter.reason)
            headers = {REASON_HEADER: reason_header} | left.headers
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


def _clear_delayed(
    connection: Connection,
    held: QueueHold,
    messages: Sequence[Any],
    person: Person,
    delay_queue: str,
    outcome: Outcome,
) -> None:
    publisher = user_of(connection)
    settled = []
    copies: dict[str, list[AmqpMessage]] = {}
    for message in messages:
        queue = str(message.delivery_info["routing_key"])
        incoming = RawDelivery.of(message, believed(queue, publisher))
        left = redacted(incoming, _type(incoming), person)
        if left is None:
            continue
        settled.append(message.delivery_info["delivery_tag"])
        # Anyone who may declare an exchange can route a message here whose key is no work queue;
        # the broker would drop it when its delay ends.
        if left.body is not None and queue in _WORK:
            copy = _copy(incoming, incoming.user_id, publisher, left)
            copies.setdefault(queue, []).append(limit_trust(incoming, copy, queue))
    for queue, waiting in copies.items():
        publish(connection, queue, waiting)
    held.settle(settled)
    if settled:
        outcome.places[delay_queue] += len(settled)


def _copy(incoming: RawDelivery, user: str | None, publisher: str, left: Remainder) -> AmqpMessage:
    copy = again(incoming, user, publisher, left.headers)
    copy.body = left.body
    return copy


def _customer_queues(connection: Connection) -> list[str]:
    """Return the names of the existing queues of `CUSTOMER_QUEUES`, with their shards."""
    return [name for queue in CUSTOMER_QUEUES for name in declaration.parts(connection, queue)]


def _all(held: QueueHold) -> Iterator[Any]:
    while messages := held.take(BATCH):
        yield from messages


def _note_unseen(held: QueueHold, queue: str, outcome: Outcome) -> None:
    if not held.alone or held.unseen:
        outcome.unseen[queue] = held.unseen


def _scan(connection: Connection, queue: str, see: Visitor, outcome: Outcome) -> None:
    try:
        scan(connection, queue, see)
    except BusyError:
        outcome.unseen[queue] = count(connection, queue)


def _type(incoming: RawDelivery) -> str:
    return str(incoming.properties.get("type") or "")


def _found(incoming: RawDelivery, place: str, queue: str) -> FoundMessage:
    return FoundMessage(
        place=place,
        queue=queue,
        message_id=str(incoming.properties.get("message_id") or ""),
        type=_type(incoming),
        body=incoming.body.decode(errors="backslashreplace"),
        reason=str(incoming.headers.get(REASON_HEADER) or ""),
    )
