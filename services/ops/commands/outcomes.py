"""What has become of a command that was given: carried out, refused, or neither yet.

A consumer's inbox knows what it has carried out; what it refused for good is among its dead letters
at once, with the reason.
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
LETTERS_EVERY = 3  # looks into the books for one into the dead letters, which costs more


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command.

    Attributes:
        state: `carried out`, `refused`, or `waiting` when neither is known yet.
        sentence: what to tell the operator.
    """

    state: Literal["carried out", "refused", "waiting"]
    sentence: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who carries a command out.

    Attributes:
        queue: what it waits in.
        consumer: the name in the inbox.
        standing: how things stand when it was done, in words.
    """

    queue: topology.Queue
    consumer: str
    standing: Callable[[Engine], str] = lambda _: "Carried out."


SECRETS = Recipient(topology.SECRETS_ROTATE, "services.secrets")


def look(
    engine: Engine,
    message_id: UUID,
    recipient: Recipient,
    connection: Connection | None = None,
) -> Outcome | None:
    """What has become of a command; None when nothing is known yet.

    Args:
        engine: to look for the effect in the books.
        message_id: of the command.
        recipient: who carries it out.
        connection: to look for a refusal among the dead letters too, which costs more.

    Returns:
        Where those could not all be looked at, that it waits, with why they could not.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    if _is_done(engine, message_id, recipient.consumer):
        return Outcome("carried out", recipient.standing(engine))
    if connection is None:
        return None
    try:
        letter = find(connection, recipient.queue, str(message_id))
    except BusyError as error:
        return Outcome("waiting", str(error))
    except AccessRefused:  # an operator may publish decisions and no more
        return Outcome("waiting", f"You may not look into {recipient.queue.dead}.")
    return None if letter is None else Outcome("refused", letter.reason)


def wait(
    connection: Connection,
    engine: Engine,
    message_id: UUID,
    recipient: Recipient,
    seconds: float,
) -> Outcome:
    """Wait for what becomes of a command.

    Args:
        connection: to look for a refusal among the dead letters.
        engine: to look for the effect in the books.
        message_id: of the command.
        recipient: who carries it out.
        seconds: how long to wait.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    deadline, looks = time.monotonic() + seconds, 0
    while True:
        looks += 1
        is_last = time.monotonic() >= deadline
        letters = connection if is_last or looks % LETTERS_EVERY == 0 else None
        outcome = look(engine, message_id, recipient, letters)
        if outcome is not None and outcome.state != "waiting":
            return outcome
        if is_last:
            return given_up(recipient, f"{seconds:g} s", outcome)
        time.sleep(POLL_SECONDS)


def given_up(recipient: Recipient, after: str, last: Outcome | None) -> Outcome:
    """What is told of a command that is waited for no longer.

    Args:
        recipient: who carries it out.
        after: how long it was waited for.
        last: what the last look brought, which was one among the dead letters.
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
