"""The outcome of a published command: carried out, refused, or waiting.

The consumer's inbox records the commands that were carried out; refused ones are dead letters, with
the reason.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from amqp.exceptions import AccessRefused
from kombu import Connection
from sqlalchemy import Engine, select

from services.ops.broker.hold import BusyError
from services.ops.dead_letters.search import find
from shared.bus.contract import topology
from shared.db.models import InboxEntry

POLL_SECONDS = 0.1
LETTERS_EVERY = 3  # polls of the inbox per search in the dead letters, which costs more


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a command.

    Attributes:
        state: `carried out`, `refused`, or `waiting` if neither is known yet.
        sentence: what to tell the operator.
    """

    state: Literal["carried out", "refused", "waiting"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """The consumer of a command.

    Attributes:
        queue: its work queue.
        consumer: its name in the inbox.
        standing: describes the result of a command that was carried out.
    """

    queue: topology.Queue
    consumer: str
    standing: Callable[[Engine], str] = lambda _: "Carried out."


SECRETS = Recipient(topology.SECRETS_ROTATE, "services.secrets")


def outcome_of(
    engine: Engine,
    message_id: UUID,
    recipient: Recipient,
    connection: Connection | None = None,
) -> Outcome | None:
    """Return the outcome of a command; None if it is not known yet.

    Args:
        engine: the database with the consumer's inbox.
        message_id: the command's message id.
        recipient: the command's consumer.
        connection: given to search the dead letters too, which costs more.

    Returns:
        `waiting`, with the reason, if the dead letters could not all be read.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unreachable.
    """
    if _is_done(engine, message_id, recipient.consumer):
        return Outcome("carried out", recipient.standing(engine))
    if connection is None:
        return None
    try:
        letter = find(connection, recipient.queue, str(message_id))
    except BusyError as error:
        return Outcome("waiting", str(error))
    except AccessRefused:  # an operator's broker user may only publish decisions
        return Outcome("waiting", f"You may not look into {recipient.queue.dead}.")
    return None if letter is None else Outcome("refused", letter.reason)


def wait(
    connection: Connection,
    engine: Engine,
    message_id: UUID,
    recipient: Recipient,
    seconds: float,
) -> Outcome:
    """Wait for the outcome of a command.

    Args:
        connection: an open kombu connection, to search the dead letters.
        engine: the database with the consumer's inbox.
        message_id: the command's message id.
        recipient: the command's consumer.
        seconds: the timeout.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unreachable.
    """
    deadline, polls = time.monotonic() + seconds, 0
    while True:
        polls += 1
        is_last = time.monotonic() >= deadline
        letters = connection if is_last or polls % LETTERS_EVERY == 0 else None
        outcome = outcome_of(engine, message_id, recipient, letters)
        if outcome is not None and outcome.state != "waiting":
            return outcome
        if is_last:
            return given_up(recipient, f"{seconds:g} s", outcome)
        time.sleep(POLL_SECONDS)


def given_up(recipient: Recipient, after: str, last: Outcome | None) -> Outcome:
    """Return the outcome of a command that is no longer waited for.

    Args:
        recipient: the command's consumer.
        after: how long it was waited for.
        last: the result of the last search in the dead letters.
    """
    safe = f"t is safe in {recipient.queue.name}: is {recipient.consumer} running?"
    sentence = f"Not carried out after {after}. I{safe}"
    if last is not None:
        sentence = (
            f"Not carried out after {after}, and whether it was refused is not known. "
            f"{last.sentence} If it was not, i{safe}"
        )
    return Outcome("waiting", sentence)


def _is_done(engine: Engine, message_id: UUID, consumer: str) -> bool:
    with engine.connect() as connection:
        known = select(InboxEntry.message_id).where(
            InboxEntry.consumer == consumer, InboxEntry.message_id == message_id
        )
        return connection.execute(known).first() is not None
