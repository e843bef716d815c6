"""Sending by SMTP over connections that are kept open, several at a time.

A connection belongs to one thread. What the server's answer means: RFC 5321, 4.2.1.
"""

import smtplib
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from shared.bus.retry import Hold, Permanent, Retry
from shared.config import Settings

log = structlog.get_logger()


class UndeliverableError(Permanent):
    """The mail server refused this email for good.

    Attributes:
        code: its reply code, 5xx.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Mailer:
    """Sends emails.

    Args:
        config: the settings whose names begin with `smtp_`.
        connections: how many emails are under way at once, each on a connection of its own.
        sender: the envelope's sender.
    """

    def __init__(self, config: Settings, connections: int, sender: str) -> None:
        self._config = config
        self._sender = sender
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="smtp")
        self._local = threading.local()

    def send(self, emails: Sequence[tuple[str, bytes]]) -> list[Exception | None]:
        """Send emails, several at a time.

        Args:
            emails: recipient and content of each.

        Returns:
            For each None, or what stopped it: `UndeliverableError`, `Retry`, or `Hold` when there
            is no mail server to talk to.
        """
        return list(self._threads.map(self._try, emails))

    def _try(self, email: tuple[str, bytes]) -> Exception | None:
        recipient, content = email
        try:
            self._deliver(recipient, content)
        except (Hold, Retry, Permanent) as error:
            return error
        except (smtplib.SMTPException, OSError) as error:
            # Whether it got there is not known, or the connection's state is not.
            self._close()
            return Retry(f"{type(error).__name__}: {error}"[:200])
        return None

    def _deliver(self, recipient: str, content: bytes) -> None:
        smtp, is_fresh = self._connection()
        try:
            code, text = smtp.mail(self._sender)
        except (smtplib.SMTPServerDisconnected, OSError):
            if is_fresh:
                raise
            # A server may close what has been idle; nothing has been said on it yet.
            self._close()
            smtp, _ = self._connection()
            code, text = smtp.mail(self._sender)
        if code != 250:
            # About us, not about the recipient: even a 5xx is not this email's end.
            self._reset(smtp, code)
            raise Retry(f"the sender was refused: {_answer(code, text)}")
        code, text = smtp.rcpt(recipient)
        if code not in (250, 251):
            self._reset(smtp, code)
            raise _refusal(code, text)
        code, text = smtp.data(content)
        if code != 250:
            self._reset(smtp, code)
            raise _refusal(code, text)

    def _connection(self) -> tuple[smtplib.SMTP, bool]:
        smtp: smtplib.SMTP | None = getattr(self._local, "smtp", None)
        if smtp is not None:
            return smtp, False
        try:
            self._local.smtp = smtp = self._open()
        except (smtplib.SMTPException, OSError) as error:
            raise Hold(f"no mail server: {type(error).__name__}: {error}"[:200]) from None
        return smtp, True

    def _open(self) -> smtplib.SMTP:
        config = self._config
        smtp = smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=config.smtp_timeout)
        try:
            if smtp.sock is not None:
                smtp.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            smtp.ehlo_or_helo_if_needed()
            if config.smtp_starttls:
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo()
            if config.smtp_username:
                smtp.login(config.smtp_username, config.smtp_password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _reset(self, smtp: smtplib.SMTP, code: int) -> None:
        """Make the connection fit for the next email, or drop it when the server says goodbye."""
        if code == 421:
            self._close()
            return
        try:
            smtp.rset()
        except (smtplib.SMTPException, OSError):
            self._close()

    def _close(self) -> None:
        smtp: smtplib.SMTP | None = getattr(self._local, "smtp", None)
        self._local.smtp = None
        if smtp is not None:
            smtp.close()


def _refusal(code: int, text: bytes) -> Exception:
    if 500 <= code < 600:
        return UndeliverableError(code, _words(text))
    return Retry(_answer(code, text))


def _answer(code: int, text: bytes) -> str:
    return f"{code} {_words(text)}"


def _words(text: bytes) -> str:
    """The server's words, without the addresses in them."""
    words = text.decode("ascii", "replace").split()
    return " ".join(word for word in words if "@" not in word)[:150]
