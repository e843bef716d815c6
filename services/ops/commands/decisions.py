"""Publishing an operator's decision, and seeing what became of it."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import msgspec
from amqp import Message as AmqpMessage
from amqp.exceptions import AccessRefused
from kombu import Connection
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from services.ops.commands.kyc_persons import recorded, sentence
from services.ops.dead_letters.search import find
from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology
from shared.bus.contract.events import (
    AccountBlock,
    KycDecide,
    SecretRevoke,
    SecretRotate,
    WebhookLimit,
)
from shared.bus.contract.headers import ACTING_HEADER
from shared.bus.contract.message import message_for
from shared.db.models import Account, InboxEntry, KycApplication
from shared.ids import new_id

Decision = Literal["approve", "reject", "revoke", "ask"]
REASONED = ("reject", "ask")
"""What the business is told nothing by without a reason."""

CONFIRM_TIMEOUT = 5.0  # seconds
POLL_SECONDS = 0.1
LETTERS_EVERY = 3  # looks into the books for one into the dead letters, which costs more
DEAD = topology.KYC_DECISIONS.dead
CONSUMER = "services.kyc"
"""The inbox that knows which decisions were carried out."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision.

    Attributes:
        state: `carried out`, `refused`, or `waiting` when neither is known yet.
        sentence: what to tell the operator.
    """

    state: Literal["carried out", "refused", "waiting"]
    sentence: str


def make(
    decision: Decision, business: str, reason: str, application_id: UUID | None = None
) -> KycDecide:
    """The command.

    Args:
        decision: what to do.
        business: an account id, an email address or a registration number.
        reason: what the business is told.
        application_id: the application that was looked at; another one is not decided on.

    Raises:
        msgspec.ValidationError: one of them has not the form it must have.
    """
    business = business.strip()
    if _is_id(business):
        name = "account_id"
    else:
        name = "email" if "@" in business else "business_registration_number"
    given = {"decision": decision, name: business, "reason": reason}
    return msgspec.convert(given | {"application_id": application_id}, KycDecide)


def publish(
    connection: Connection,
    command: KycDecide | SecretRotate | SecretRevoke | WebhookLimit | AccountBlock,
    person: str = "",
) -> UUID:
    """Publish a decision, or another command; returns its message id once a queue has it for sure.

    Args:
        connection: an open kombu connection. Its user goes into `user_id`, which the broker
            verifies: that is how the books know who decided.
        command: what to publish.
        person: who wants it, where many share that user; believed of the ops console's user alone.

    Raises:
        Exception: of kombu or py-amqp; it is not known to be on the bus.
    """
    message_id = new_id()
    message = message_for(
        command,
        source="services.ops",
        correlation_id=command.account_id or message_id,
        message_id=message_id,
    )
    acting = {ACTING_HEADER: person} if person else {}
    declaration.ensure(connection)
    with connection.channel() as channel:
        channel.basic_publish_confirm(
            AmqpMessage(
                message.body,
                application_headers=message.headers() | acting,
                content_type="application/json",
                correlation_id=message.correlation_id,
                delivery_mode=2,
                message_id=message.message_id,
                timestamp=int(message.time.timestamp()),
                type=message.type,
                user_id=user_of(connection),
            ),
            exchange=message.exchange,
            routing_key=message.routing_key,
            mandatory=True,
            confirm_timeout=CONFIRM_TIMEOUT,
        )
    return message_id


def wait(
    connection: Connection,
    engine: Engine,
    message_id: UUID,
    command: KycDecide,
    seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Wait for what becomes of a published decision.

    Args:
        connection: to look for a refusal among the dead letters.
        engine: to look for the effect in the books.
        message_id: of the decision.
        command: the decision.
        seconds: how long to wait.
        now: a monotonic clock.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    deadline, looks = now() + seconds, 0
    while True:
        looks += 1
        letters = connection if looks % LETTERS_EVERY == 0 else None
        outcome = look(engine, message_id, command, letters)
        if outcome is not None:
            return outcome
        if now() >= deadline:
            return Outcome(
                "waiting",
                f"Not carried out after {seconds:g} s. It is safe in {topology.KYC_DECISIONS.name}"
                ": is services.kyc running?",
            )
        time.sleep(POLL_SECONDS)


def look(
    engine: Engine, message_id: UUID, command: KycDecide, connection: Connection | None = None
) -> Outcome | None:
    """What has become of a published decision; None when nothing is known yet.

    Args:
        engine: to look for the effect in the books.
        message_id: of the decision.
        command: the decision.
        connection: to look for a refusal among the dead letters too, which costs more.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    if is_done(engine, message_id):
        return Outcome("carried out", _standing(engine, command))
    refusal = _refusal(connection, message_id) if connection is not None else None
    return None if refusal is None else Outcome("refused", refusal)


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def is_done(engine: Engine, message_id: UUID, consumer: str = CONSUMER) -> bool:
    """Whether a consumer has carried out a command.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    with engine.connect() as connection:
        known = select(InboxEntry.message_id).where(
            InboxEntry.consumer == consumer, InboxEntry.message_id == message_id
        )
        return connection.execute(known).first() is not None


def meant(engine: Engine, command: KycDecide) -> UUID | None:
    """The application that is meant, looked up before anything is published; None: nobody's.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    row = _newest(engine, command)
    return None if row is None else row.id


def _standing(engine: Engine, command: KycDecide) -> str:
    """Where the business stands now, in words."""
    row = _newest(engine, command)
    if row is None:
        return "Done."
    with Session(engine) as session:
        so_far = sentence(recorded(session, [row.id]).get(row.id, ()))
    by = f", decided by {row.decided_by}" if row.decided_by else ""
    stands = f"{row.company_name} ({row.email}) is {row.status}{by}."
    return f"{stands} Recorded: {so_far}." if so_far else stands


def _newest(engine: Engine, command: KycDecide) -> Any:
    newest = (
        select(
            Account.company_name,
            Account.email,
            KycApplication.id,
            KycApplication.status,
            KycApplication.decided_by,
        )
        .join(KycApplication, KycApplication.account_id == Account.id)
        .order_by(KycApplication.submitted_at.desc(), KycApplication.id.desc())
        .limit(1)
    )
    if command.account_id is not None:
        newest = newest.where(Account.id == command.account_id)
    elif command.email is not None:
        newest = newest.where(Account.email == command.email.lower())
    else:
        number = command.business_registration_number
        newest = newest.where(KycApplication.business_registration_number == number)
    with engine.connect() as connection:
        return connection.execute(newest).first()


def _refusal(connection: Connection, message_id: UUID) -> str | None:
    """Why the decision died, if it did.

    An operator may publish decisions and no more: for who may not look, none has died.
    """
    with suppress(AccessRefused):
        letter = find(connection, topology.KYC_DECISIONS, str(message_id))
        return None if letter is None else letter.reason
    return None
