"""`smtplib.SMTP` with a bound on each reply's lines and time.

Timeouts follow RFC 5321, 4.5.3.2.
"""

import select
import smtplib
import socket
import time
from collections.abc import Callable

from services.notifier.mail.replies import Reply

CONNECT_SECONDS = 30.0
THINKING_SECONDS = 5.0
"""After which a server that has not replied to a command counts as slow."""
POLL_SECONDS = 1.0  # how long a slow reply's reader may not notice `is_given_up`
MOST_LINES = 100
"""Of one reply."""
MOST_BYTES = 8_192
"""Of one line of a reply."""
RECORD = 16_384
"""Bytes of a TLS record: reading fewer would leave some where `poll` does not see them."""
# A server may take minutes for a reply; a machine that vanished is noticed by TCP keepalive or,
# while data is unacknowledged, by TCP_USER_TIMEOUT (milliseconds).
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)


class Client(smtplib.SMTP):
    """An SMTP client whose every reply is bounded in lines and in total time.

    Args:
        host: the server's.
        port: the server's.
        timeout: seconds for a command and its reply.
        on_slow: called once, by the first reply that takes `THINKING_SECONDS`.

    Attributes:
        has_content: whether the content of the current email was sent.
        is_given_up: whether to stop waiting for replies before that; set by another thread.
    """

    _unread = b""
    has_content = is_given_up = False

    def __init__(
        self, host: str, port: int, timeout: float, on_slow: Callable[[], None] | None
    ) -> None:
        self.on_slow = on_slow
        super().__init__(host, port, timeout=timeout)

    def is_idle(self) -> bool:
        """Return whether the connection is open and the server sent nothing since its last reply.

        An idle server sends at most a goodbye, which must not be read as the next command's reply.
        """
        if self.sock is None or self._unread:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if not poll.poll(0):
            return True
        try:
            return not self._receive(0.0)  # TLS itself sends records, such as session tickets
        except (smtplib.SMTPException, OSError):
            return False

    def discard_unread(self) -> None:
        """Drop bytes received before TLS began: they must not count as replies."""
        self._unread = b""

    def getreply(self) -> Reply:
        """Read a reply within the timeout of a command."""
        return self.reply(self.timeout)

    def reply(self, timeout: float) -> Reply:
        """Read a reply.

        Args:
            timeout: seconds for all of it.

        Raises:
            SMTPServerDisconnected: the server closed the connection.
            SMTPException: the reply is too slow or too long, or the email was given up.
            OSError: the network failed.
        """
        started = time.monotonic()
        lines: list[bytes] = []
        while len(lines) < MOST_LINES:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                lines.append(line[4:].strip())
                if line[3:4] != b"-" or not line[:3].isdigit():
                    return (int(line[:3]) if line[:3].isdigit() else -1), b"\n".join(lines)
                continue
            elapsed = time.monotonic() - started
            if self.on_slow is not None and elapsed >= THINKING_SECONDS:
                on_slow, self.on_slow = self.on_slow, None
                on_slow()
            if elapsed >= timeout or len(line) > MOST_BYTES:
                break
            if self.is_given_up and not self.has_content:
                self.close()
                raise smtplib.SMTPException(f"no reply within {elapsed:.0f} s, and others wait")
            step = POLL_SECONDS if self.on_slow is None else THINKING_SECONDS - elapsed
            self._unread += self._receive(min(step, timeout - elapsed))
        self.close()
        raise smtplib.SMTPException(f"no end of a reply within {timeout:g} s")

    def _receive(self, seconds: float) -> bytes:
        """Return the bytes that arrive within this time; may be none.

        Raises:
            SMTPServerDisconnected: the connection is closed.
            OSError: the network failed.
        """
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection was closed")
        self.sock.settimeout(max(seconds, 0.001))
        try:
            received = self.sock.recv(RECORD)
        except TimeoutError as error:
            if error.errno is not None:
                raise  # ETIMEDOUT: the peer's machine acknowledged nothing for too long
            return b""
        finally:
            self.sock.settimeout(self.timeout)
        if not received:
            self.close()
            raise smtplib.SMTPServerDisconnected("the server closed the connection")
        return received

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connected = socket.create_connection((host, port), min(timeout, CONNECT_SECONDS))
        connected.settimeout(timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in KEEPALIVE:
            connected.setsockopt(level, option, value)
        return connected
