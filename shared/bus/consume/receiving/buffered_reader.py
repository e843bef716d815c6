"""Reading from a broker without a system call for every piece of a frame.

py-amqp asks the socket for the head of a frame, its payload and its last byte one by one, and sets
the socket's timeout around each frame: a dozen system calls a message, at each of which another
thread may take the interpreter. Here it reads by the chunk and waits only when nothing is left.
"""

import select
from collections.abc import Callable
from typing import Any

from kombu import Connection

from shared.bus.consume.receiving import frames

CHUNK = 65_536  # bytes, some eighty deliveries


class Inbound:
    """The receiving side of a kombu connection over py-amqp.

    Args:
        connection: an open one; from now on it is read from here alone.
    """

    def __init__(self, connection: Connection) -> None:
        self._amqp: Any = connection.connection
        self._transport = self._amqp.transport
        self._receive = read = self._transport._quick_recv
        # Both of py-amqp's transports keep what they were given beyond what they asked for.
        self._transport._quick_recv = lambda size: read(max(size, CHUNK))
        self._poll = select.poll()
        self._poll.register(self._transport.sock, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read; returns whether there is."""
        return bool(self._transport._read_buffer) or self._has_come(seconds)

    def read(self) -> None:
        """Read what has come, or one frame, and act on it.

        The callbacks of whole messages are called.

        Raises:
            TimeoutError: the rest of a begun frame did not come in the connection's read timeout.
        """
        if self._read_deliveries():
            return
        if self._has_come(0):
            self._transport._read_buffer += self._receive(CHUNK)
            if self._read_deliveries():
                return
        self._amqp.blocking_read()

    def _has_come(self, seconds: float) -> bool:
        # What TLS has decrypted and nobody has read yet, the kernel does not know of.
        pending = getattr(self._transport.sock, "pending", None)
        return bool((pending is not None and pending()) or self._poll.poll(seconds * 1_000))

    def _read_deliveries(self) -> bool:
        """Act on the ordinary deliveries that the buffer begins with; returns whether it did."""
        buffer, at = self._transport._read_buffer, 0
        found: list[tuple[Callable[[Any], None], frames.Message]] = []
        while (one := frames.delivery(buffer, at)) is not None:
            number, message, end = one
            channel = self._amqp.channels.get(number)
            callback = channel and channel.callbacks.get(message.delivery_info["consumer_tag"])
            if not callback or channel.is_closing:
                break
            found.append((callback, message))
            at = end
        if found:
            self._transport._read_buffer = buffer[at:]
            self._amqp.bytes_recv += 3 * len(found)  # frames, by which it knows that we are there
            for callback, message in found:
                callback(message)
        return bool(found)
