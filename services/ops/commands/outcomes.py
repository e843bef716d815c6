"""What has become of a command that was given: carried out, refused, or neither yet.

A consumer's inbox knows what it has carried out; what it refused for good is among its dead letters
at once, with the reason.
"""

import time
from collections.abc import Callable
from contextlib import suppress
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

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    if _is_done(engine, message_id, recipient.consumer):
        return Outcome("carried out", recipient.standing(engine))
    refusal = _refusal(connection, message_id, recipient.queue) if connection is not None else None
    return None if refusal is None else Outcome("refused", refusal)


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
        if outcome is not None:
            return outcome
        if is_last:
            return Outcome(
                "waiting",
                f"Not carried out after {seconds:g} s. It is safe in {recipient.queue.name}: "
                f"is {recipient.consumer} running?",
            )
        time.sleep(POLL_SECONDS)


def _is_done(engine: Engine, message_id: UUID, consumer: str) -> bool:
    with engine.connect() as connection:
        known = select(InboxEntry.message_id).where(
            InboxEntry.consumer == consumer, InboxEntry.message_id == message_id
        )
        return connection.execute(known).first() is not None


def _refusal(connection: Connection, message_id: UUID, queue: topology.Queue) -> str | None:
    """Why a command died, if it did.

    An operator may publish decisions and no more: for who may not look, none has died.
    """
    # What somebody else has in hand is asked for again.
    with suppress(AccessRefused, BusyError):
        letter = find(connection, queue, str(message_id))
        return None if letter is None else letter.reason
    return None
