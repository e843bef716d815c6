"""Try whether the broker would accept a message, without leaving a copy of it.

The broker closes the channel over a message that is too big, or for an exchange that does not exist
or that this user may not write to, and all outstanding confirms are lost with the channel. In an
AMQP transaction it checks the same, and a rollback leaves nothing (AMQP 0-9-1, 1.9; RabbitMQ,
"Broker Semantics").
"""

from typing import Any, NoReturn

from amqp import Message as AmqpMessage
from amqp.exceptions import ChannelError, ConnectionForced
from amqp.exceptions import ConnectionError as ConnectionLostError

from shared.bus.broker.kombu_connection import BrokerConnection, connect
from shared.bus.contract.message import Message
from shared.bus.publish.confirms import BlockedError, UnavailableError

TIMEOUT = 10.0  # seconds, for the broker to answer
_SILENCE = (TimeoutError, BlockingIOError)
"""The timeouts of py-amqp, by kind of socket."""
_NOT_FOUND, _ACCESS_REFUSED = 404, 403


class RefusedError(Exception):
    """The broker refuses the message.

    Args:
        reason: in the broker's words.
        is_destination: whether it refuses all messages for that exchange and routing key.
    """

    def __init__(self, reason: str, *, is_destination: bool) -> None:
        super().__init__(reason)
        self.is_destination = is_destination


class CannotTryError(UnavailableError):
    """No connection to try messages on; not the fault of a message."""


class Rehearsal:
    """A connection to try messages on; blocking, and not thread-safe.

    Args:
        amqp_url: with the user that the messages are published as.
    """

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self._connection: BrokerConnection | None = None
        self._channel: Any = None

    def try_out(self, message: Message) -> None:
        """Return if the broker would accept a message.

        Raises:
            RefusedError: it would not.
            BlockedError: it has an alarm.
            CannotTryError: it accepts no further connection.
            UnavailableError: it does not answer, or the connection was lost.
            Exception: of kombu or py-amqp, if the broker is unreachable.
        """
        is_fresh, is_open = self._connection is None, False
        try:
            channel = self._open()
            is_open = True
            self._try(channel, message)
        except BlockedError:
            self._collect()
            raise
        # A refused sign-in is a ChannelError too.
        except (ConnectionLostError, ChannelError, OSError) as error:
            self._collect()
            # A kept connection may have been lost long ago: try once more, unless the broker hangs.
            if is_fresh or isinstance(error, _SILENCE):
                raise _meaning(error, is_open=is_open) from None
            self.try_out(message)

    def _try(self, channel: Any, message: Message) -> None:
        try:
            channel.basic_publish(
                AmqpMessage(message.body, type=message.type, delivery_mode=2),
                exchange=message.exchange,
                routing_key=message.routing_key,
            )
            channel.tx_rollback()
        except ChannelError as error:
            self._channel = None
            channel.close()  # py-amqp has reopened it, without a transaction
            is_destination = error.reply_code in (_NOT_FOUND, _ACCESS_REFUSED)
            raise RefusedError(_words(error), is_destination=is_destination) from None

    def close(self) -> None:
        """Close the connection; the next message opens a new one."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.release()

    def _collect(self) -> None:
        # Without a closing handshake, which a hung broker or one with an alarm does not answer.
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.leave()
            connection.collect()

    def _open(self) -> Any:
        if self._connection is None:
            options = {
                "read_timeout": TIMEOUT,
                "write_timeout": TIMEOUT,
                "on_blocked": _blocked,
            }
            self._connection = connect(self._amqp_url, timeout=5, transport_options=options)
        if self._channel is None:
            self._channel = self._connection.channel()
            self._channel.tx_select()
        return self._channel


def _blocked(reason: str) -> NoReturn:
    raise BlockedError(f"the broker has an alarm: {reason}")


def _meaning(error: Exception, *, is_open: bool) -> Exception:
    """Return the error to raise for the failure of a new connection."""
    if not is_open:
        return CannotTryError(f"the broker lets no connection in: {_words(error)}")
    # The message is at fault only if the broker closed the connection itself, and not because it
    # stops (AMQP 0-9-1, 1.4.2.10).
    is_said = isinstance(error, ConnectionLostError) and error.method_sig is not None
    if is_said and not isinstance(error, ConnectionForced):
        return RefusedError(f"the broker hangs up over it: {_words(error)}", is_destination=False)
    return UnavailableError(f"the broker is away or blocked: {_words(error)}")


def _words(error: Exception) -> str:
    return getattr(error, "reply_text", "") or str(error) or type(error).__name__
