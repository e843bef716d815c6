"""Replaying a dead letter with another body, if its queue's consumer would understand that."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor
from services.ops.broker.publishing import publish
from services.ops.dead_letters.actions import copy_of, settle
from services.ops.dead_letters.facts import replayed
from services.ops.dead_letters.letter import Criteria, Letter
from services.ops.dead_letters.search import find
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology
from shared.bus.contract.events import EVENT_TYPES, Event, decode
from shared.bus.contract.message import Message


class NotEditableError(Exception):
    """The new body or type was refused; the message says why."""


class DiedAgainError(Exception):
    """The letter died again since the operator loaded it."""

    def __init__(self) -> None:
        super().__init__("It has died again meanwhile: look at it again.")


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
    """Replay one letter with another body, under the same id.

    Args:
        connection: an open kombu connection.
        engine: the database for the audit fact.
        queue: the work queue.
        message_id: the letter's id.
        body: the new body, JSON in UTF-8.
        actor: the operator.
        death: the `Letter.death` that the operator saw; None accepts any.
        type: the message's type, if the letter has none or a wrong one.

    Returns:
        False if there is no such letter (any more).

    Raises:
        NotEditableError: the consumer would refuse the body too; nothing was done.
        DiedAgainError: the message was replayed meanwhile and died again; nothing was done.
        NotPublishedError: the broker did not take the copy.
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
    """Return the message types that a work queue takes."""
    return tuple(sorted(type_ for type_, event in EVENT_TYPES.items() if _takes(queue, event)))


def validate(queue: topology.Queue, type_: str, body: bytes) -> Event:
    """Decode a body as the queue's consumer would.

    Raises:
        NotEditableError: the consumer would refuse it; the message says why.
    """
    event = EVENT_TYPES.get(type_)
    if event is None or not _takes(queue, event):
        raise NotEditableError(
            f"{queue.name} takes no {type_ or 'message without a type'!r}: "
            f"give one of {', '.join(types_for(queue))} as its type"
        )
    try:
        return decode(type_, body)
    except msgspec.DecodeError as error:
        raise NotEditableError(f"This is no {type_}: {error}") from None


def _takes(queue: topology.Queue, event: type[Event]) -> bool:
    lanes = ("", topology.BULK)
    return any(topology.takes(queue, event.EXCHANGE, lane + event.TYPE) for lane in lanes)
