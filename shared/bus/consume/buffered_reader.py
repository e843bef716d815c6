"""Reading from a broker without a system call for every piece of a frame.

py-amqp asks the socket for the head of a frame, its payload and its last byte one by one, and sets
the socket's timeout around each frame: a dozen system calls a message, at each of which another
thread may take the interpreter. Here it reads by the chunk and waits only when nothing is left.
"""

import select
from typing import Any

from kombu import Connection

CHUNK = 8_192  # bytes; what is left of one is copied at each read, so larger is not faster


class Inbound:
    """The receiving side of a kombu connection over py-amqp.

    Args:
        connection: an open one; from now on it is read from here alone.
    """

    def __init__(self, connection: Connection) -> None:
        self._amqp: Any = connection.connection
        self._transport = self._amqp.transport
        read = self._transport._quick_recv
        # Both of py-amqp's transports keep what they were given beyond what they asked for.
        self._transport._quick_recv = lambda size: read(max(size, CHUNK))
        self._poll = select.poll()
        self._poll.register(self._transport.sock, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read; returns whether there is."""
        if self._transport._read_buffer:
            return True
        # What TLS has decrypted and nobody has read yet, the kernel does not know of.
        pending = getattr(self._transport.sock, "pending", None)
        return bool((pending is not None and pending()) or self._poll.poll(seconds * 1_000))

    def read(self) -> None:
        """Read one frame and act on it; the callbacks of a whole message are called.

        Raises:
            TimeoutError: the rest of a begun frame did not come in the connection's read timeout.
        """
        self._amqp.blocking_read()
