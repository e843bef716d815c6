"""Read from a broker by the chunk.

py-amqp reads the head of a frame, its payload and its last byte one by one, and sets the socket's
timeout around each frame: a dozen system calls a message, at each of which another thread may take
the GIL. This reader fills a buffer, decodes deliveries from it, and waits only when it is empty.
"""

import select
from collections.abc import Callable
from typing import Any

from kombu import Connection

from shared.bus.consume.receiving import frames

CHUNK = 65_536  # bytes, some eighty deliveries


class BufferedReader:
    """The receiving side of a kombu connection over py-amqp.

    Args:
        connection: open; must not be read by any other code from now on.
    """

    def __init__(self, connection: Connection) -> None:
        self._amqp: Any = connection.connection
        self._transport = self._amqp.transport
        self._receive = read = self._transport._quick_recv
        # Both of py-amqp's transports buffer what a read returns beyond the size asked for.
        self._transport._quick_recv = lambda size: read(max(size, CHUNK))
        self._poll = select.poll()
        self._poll.register(self._transport.sock, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Return whether something can be read, waiting up to `seconds`."""
        return bool(self._transport._read_buffer) or self._has_come(seconds)

    def read(self) -> None:
        """Read all buffered deliveries, or one frame, and call the callbacks of whole messages.

        Raises:
            TimeoutError: the rest of a frame did not arrive within the connection's read timeout.
        """
        if self._read_deliveries():
            return
        if self._has_come(0):
            self._transport._read_buffer += self._receive(CHUNK)
            if self._read_deliveries():
                return
        self._amqp.blocking_read()

    def _has_come(self, seconds: float) -> bool:
        # Bytes that TLS has decrypted and buffered are not visible to poll().
        pending = getattr(self._transport.sock, "pending", None)
        return bool((pending is not None and pending()) or self._poll.poll(seconds * 1_000))

    def _read_deliveries(self) -> bool:
        """Handle the plain deliveries at the start of the buffer; return whether there were any."""
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
            self._amqp.bytes_recv += 3 * len(found)  # frames; heartbeat_check counts them
            for callback, message in found:
                callback(message)
        return bool(found)
