"""Publishing a command, after its audit fact is committed.

If publishing then fails, the audit log has an entry too many. The other order could publish a
command without an author in the log, when the confirm is lost or the database fails in between.
"""

from collections.abc import Callable
from uuid import UUID

from amqp import Message as AmqpMessage
from amqp.exceptions import AccessRefused
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor, about, commanded, commit_facts
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
    """It is unknown whether a command was published: it was sent but not confirmed."""

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
    """Publish a command with a confirm; returns its message id.

    Args:
        connection: an open kombu connection. Its user becomes the message's `user_id`, which the
            broker verifies, and by which consumers know who decided.
        engine: the database for the audit fact; None records no fact.
        command: the command.
        actor: the operator, for the audit log.
        person: the operator, if many share the connection's user; consumers believe it of the ops
            console's user only.
        account_id: the business, if the command names it otherwise.
        untold: called with the error if the audit fact cannot be committed, after which the command
            is still published; by default it is not.

    Raises:
        NotKnownError: the command may have been published.
        sqlalchemy.exc.DBAPIError: the audit fact could not be committed; nothing was published.
        Exception: of kombu or py-amqp; nothing was published.
    """
    message_id = new_id()
    message = about(command, command.account_id or account_id or message_id, message_id)
    declaration.ensure(connection)
    try:
        if engine is not None:
            commit_facts(engine, [commanded(actor, command, message_id, account_id)])
    except Exception as error:
        if untold is None:
            raise
        untold(error)
    publish(connection, message, person)
    return message_id


def publish(connection: Connection, message: Message, person: str = "") -> None:
    """Publish the message of a command; see `give` for arguments and errors."""
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
