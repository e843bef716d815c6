"""Giving a command: told to the audit log first, then published.

What was told and not published is a line too much in the log. What was published and not told would
be an act without its author: a confirm that does not come, or a database that goes away behind it,
must not take the line back.
"""

from collections.abc import Callable
from uuid import UUID

from amqp import Message as AmqpMessage
from amqp.exceptions import AccessRefused
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor, about, commanded, tell
from shared.bus.broker import declaration
from shared.bus.broker.kombu_connection import user_of
from shared.bus.broker.refusal import explain
from shared.bus.contract.events import (
    AccountBlock,
    KycDecide,
    SecretRevoke,
    SecretRotate,
    WebhookLimit,
)
from shared.bus.contract.headers import ACTING_HEADER
from shared.bus.contract.message import Message
from shared.ids import new_id

Command = KycDecide | SecretRotate | SecretRevoke | WebhookLimit | AccountBlock

CONFIRM_TIMEOUT = 5.0  # seconds


class NotKnownError(Exception):
    """Whether a command was given is not known: it was sent, and nobody confirmed it."""

    def __init__(self, message: Message, cause: Exception) -> None:
        super().__init__(
            f"It is not known whether {message.type} was given (message {message.message_id}): "
            f"{explain(cause).sentence} Look at the business first, and in the audit log, before "
            "you give it again."
        )


def give(
    connection: Connection,
    engine: Engine | None,
    command: Command,
    actor: Actor,
    *,
    person: str = "",
    account_id: UUID | None = None,
    untold: Callable[[Exception], None] | None = None,
) -> UUID:
    """Publish a command; returns its message id once a queue has it for sure.

    Args:
        connection: an open kombu connection. Its user goes into `user_id`, which the broker
            verifies: that is how the books know who decided.
        engine: of the database that the audit log is told by; None: nobody is told.
        command: what to publish.
        actor: who gives it, for the audit log.
        person: who wants it, where many share the connection's user; believed of the ops console's
            user alone.
        account_id: whom it is about, where the command names them otherwise.
        untold: called when the audit log cannot be told, and the command is given all the same;
            without it nothing is given then.

    Raises:
        NotKnownError: it may be given.
        sqlalchemy.exc.DBAPIError: nothing was given, as the audit log could not be told.
        Exception: of kombu or py-amqp; nothing was given.
    """
    message_id = new_id()
    message = about(command, command.account_id or account_id or message_id, message_id)
    declaration.ensure(connection)
    try:
        if engine is not None:
            tell(engine, [commanded(actor, command, message_id, account_id)])
    except Exception as error:
        if untold is None:
            raise
        untold(error)
    publish(connection, message, person)
    return message_id


def publish(connection: Connection, message: Message, person: str = "") -> None:
    """Publish the message of a command; arguments and errors are those of `give`."""
    acting = {ACTING_HEADER: person} if person else {}
    outgoing = AmqpMessage(
        message.body,
        application_headers=message.headers() | acting,
        content_type="application/json",
        correlation_id=message.correlation_id,
        delivery_mode=2,
        message_id=message.message_id,
        timestamp=int(message.time.timestamp()),
        type=message.type,
        user_id=user_of(connection),
    )
    is_sent = is_confirmed = False
    try:
        with connection.channel() as channel:
            is_sent = True
            channel.basic_publish_confirm(
                outgoing,
                exchange=message.exchange,
                routing_key=message.routing_key,
                mandatory=True,
                confirm_timeout=CONFIRM_TIMEOUT,
            )
            is_confirmed = True
    except AccessRefused:
        raise
    except Exception as error:
        if is_sent and not is_confirmed:
            raise NotKnownError(message, error) from error
        if not is_sent:
            raise
