"""Trying whether the broker would take a message, without a copy of it anywhere.

The broker closes a channel over a message for an exchange that is not there, that this user may
not write to, or that is too big; and with the channel go the confirms of all that is under way.
In a transaction it checks the same, and a rollback leaves nothing (AMQP 0-9-1, 1.9; RabbitMQ,
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
"""What py-amqp raises when nothing came in time, by the kind of the socket's timeout."""
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


class CannotTryError(UnavailableError):
    """There is no connection to try messages on; it is no message's fault."""


class Rehearsal:
    """A connection to try messages on. Blocking, and not for several threads at once.

    Args:
        amqp_url: where they are to go, as the user that they are published as.
    """

    def __init__(self, amqp_url: str) -> None:
        self._amqp_url = amqp_url
        self._connection: BrokerConnection | None = None
        self._channel: Any = None

    def try_out(self, message: Message) -> None:
        """Return when the broker would take a message; none of it is left there.

        Raises:
            RefusedError: it would not.
            BlockedError: it has an alarm, and takes nothing.
            CannotTryError: it lets in no connection to try messages on.
            UnavailableError: it does not answer, or the connection was lost.
            Exception: of kombu or py-amqp, when the broker is away.
        """
        is_fresh, is_open = self._connection is None, False
        try:
            channel = self._open()
            is_open = True
            self._try(channel, message)
        except BlockedError:
            self._collect()
            raise
        # Of a channel it tells of who may not sign in, too.
        except (ConnectionLostError, ChannelError, OSError) as error:
            self._collect()
            # It may have been gone for long; one that is silent is tried again another time.
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
            channel.close()  # py-amqp has opened it again, and not for transactions
            is_destination = error.reply_code in (_NOT_FOUND, _ACCESS_REFUSED)
            raise RefusedError(_words(error), is_destination=is_destination) from None

    def close(self) -> None:
        """Close the connection; the next message opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.release()

    def _collect(self) -> None:
        # Without a word: who is silent, or has an alarm, would not answer to a close.
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
    """What it means that a fresh connection ended, before or after it was open, or was silent."""
    if not is_open:
        return CannotTryError(f"the broker lets no connection in: {_words(error)}")
    # Only what the broker itself says of the connection, and not of its own end (AMQP 0-9-1,
    # 1.4.2.10), can be over the message.
    is_said = isinstance(error, ConnectionLostError) and error.method_sig is not None
    if is_said and not isinstance(error, ConnectionForced):
        return RefusedError(f"the broker hangs up over it: {_words(error)}", is_destination=False)
    return UnavailableError(f"the broker is away or blocked: {_words(error)}")


def _words(error: Exception) -> str:
    return getattr(error, "reply_text", "") or str(error) or type(error).__name__
