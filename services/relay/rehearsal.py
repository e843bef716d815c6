"""Trying whether the broker would take a message, without a copy of it anywhere.

The broker closes a channel over a message for an exchange that is not there, that this user may
not write to, or that is too big; and with the channel go the confirms of all that is under way.
In a transaction it checks the same, and a rollback leaves nothing (AMQP 0-9-1, 1.9; RabbitMQ,
"Broker Semantics").
"""

from typing import Any

from amqp import Message as AmqpMessage
from amqp.exceptions import ChannelError
from amqp.exceptions import ConnectionError as ConnectionLostError
from kombu import Connection

from shared.bus.broker.kombu_connection import connect
from shared.bus.contract.message import Message

TIMEOUT = 10.0  # seconds, for the broker to answer
_NOT_FOUND, _ACCESS_REFUSED = 404, 403


class RefusedError(Exception):
    """The broker does not take the message.

    Args:
        reason: in the broker's words.
        is_destination: whether it takes none like it: for that exchange and key.
    """

    def __init__(self, reason: str, *, is_destination: bool) -> None:
        super().__init__(reason)
        self.is_destination = is_destination


class Rehearsal:
    """A connection to try messages on. Blocking, and not for several threads at once.

    Args:
        amqp_url: where they are to go, as the user that they are published as.
    """

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self._connection: Connection | None = None
        self._channel: Any = None

    def try_out(self, message: Message) -> None:
        """Return when the broker would take a message; none of it is left there.

        Raises:
            RefusedError: it would not.
            Exception: of kombu or py-amqp, when the broker is away.
        """
        try:
            self._try(message)
        except ConnectionLostError:
            # It may have been gone for long; what loses a fresh one too is the message's own fault.
            self.close()
            try:
                self._try(message)
            except ConnectionLostError as error:
                self.close()
                raise RefusedError(
                    f"the broker hangs up over it: {_words(error)}", is_destination=False
                ) from None

    def _try(self, message: Message) -> None:
        channel = self._open()
        try:
            channel.basic_publish(
                AmqpMessage(message.body, type=message.type, delivery_mode=2),
                exchange=message.exchange,
                routing_key=message.routing_key,
            )
            channel.tx_rollback()
        except ChannelError as error:
            self._channel = None
            channel.close()  # py-amqp has opened it again, and not for transactions
            is_destination = error.reply_code in (_NOT_FOUND, _ACCESS_REFUSED)
            raise RefusedError(_words(error), is_destination=is_destination) from None
        except OSError as error:
            raise ConnectionLostError(str(error) or type(error).__name__) from error

    def close(self) -> None:
        """Close the connection; the next message opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.release()

    def _open(self) -> Any:
        if self._connection is None:
            options = {"read_timeout": TIMEOUT, "write_timeout": TIMEOUT}
            self._connection = connect(self._amqp_url, timeout=5, transport_options=options)
        if self._channel is None:
            self._channel = self._connection.channel()
            self._channel.tx_select()
        return self._channel


def _words(error: Exception) -> str:
    return getattr(error, "reply_text", "") or str(error) or type(error).__name__
