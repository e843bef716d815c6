"""Sending by SMTP over connections that are kept open, several at a time.

A connection belongs to one thread. What the server's answer means: RFC 5321, 4.2.1.
"""

import smtplib
import socket
import ssl
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import structlog

from services.notifier import metrics
from shared import tracing
from shared.bus.retry import Hold, Permanent, Retry
from shared.config import Settings

Reply = tuple[int, bytes]
GO_AHEAD = 354

log = structlog.get_logger()


class UndeliverableError(Permanent):
    """The mail server refused this email for good.

    Attributes:
        code: its reply code, 5xx.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Outgoing(NamedTuple):
    """One email on its way: the recipient's address, the content, and the trace it travels in."""

    recipient: str
    content: bytes
    traceparent: str | None = None


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
        self._connections = connections
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="smtp")
        self._local = threading.local()

    def send(self, emails: Sequence[Outgoing]) -> list[Exception | None]:
        """Send emails, several at a time.

        Args:
            emails: what to send.

        Returns:
            For each None, or what stopped it: `UndeliverableError`, `Retry`, or `Hold` when there
            is no mail server to talk to.
        """
        # A share for each thread, and not a task for each email: handing one over costs as much
        # as a tenth of sending it.
        shares = [emails[start :: self._connections] for start in range(self._connections)]
        results: list[Exception | None] = [None] * len(emails)
        for start, outcome in enumerate(self._threads.map(self._try_all, shares)):
            results[start :: self._connections] = outcome
        return results

    def _try_all(self, emails: Sequence[Outgoing]) -> list[Exception | None]:
        outcomes = []
        for email in emails:
            with tracing.span("send email", kind="client", parent=email.traceparent) as span:
                outcome = self._try(email)
                if outcome is not None:
                    span.fail(outcome)
            outcomes.append(outcome)
        return outcomes

    def _try(self, email: Outgoing) -> Exception | None:
        try:
            with metrics.smtp_seconds.time():
                self._deliver(email.recipient, email.content)
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
            mail, rcpt, data = self._begin(smtp, recipient)
        except (smtplib.SMTPServerDisconnected, OSError):
            if is_fresh:
                raise
            # A server may close what has been idle; no email has been given to it yet.
            self._close()
            smtp, _ = self._connection()
            mail, rcpt, data = self._begin(smtp, recipient)
        if mail[0] != 250:
            # About us, not about the recipient: even a 5xx is not this email's end.
            self._reset(smtp, mail[0], data[0])
            raise Retry(f"the sender was refused: {_answer(*mail)}")
        if rcpt[0] not in (250, 251):
            self._reset(smtp, rcpt[0], data[0])
            raise _refusal(*rcpt)
        if data[0] != GO_AHEAD:
            self._reset(smtp, data[0])
            raise _refusal(*data)
        smtp.send(_transparent(content))
        code, text = smtp.getreply()
        if code != 250:
            self._reset(smtp, code)
            raise _refusal(code, text)

    def _begin(self, smtp: smtplib.SMTP, recipient: str) -> tuple[Reply, Reply, Reply]:
        """Say MAIL, RCPT and DATA; what was not said any more has the reply of what failed."""
        commands = (
            f"MAIL FROM:{smtplib.quoteaddr(self._sender)}\r\n",
            f"RCPT TO:{smtplib.quoteaddr(recipient)}\r\n",
            "DATA\r\n",
        )
        if smtp.has_extn("pipelining"):
            # RFC 2920: all three in one packet, one wait instead of three.
            smtp.send("".join(commands))
            return smtp.getreply(), smtp.getreply(), smtp.getreply()
        replies: list[Reply] = []
        for command in commands:
            if not replies or replies[-1][0] < 300:
                smtp.send(command)
                replies.append(smtp.getreply())
            else:
                replies.append(replies[-1])
        return replies[0], replies[1], replies[2]

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

    def _reset(self, smtp: smtplib.SMTP, code: int, data: int = 0) -> None:
        """Make the connection fit for the next email, or drop it when the server says goodbye.

        Args:
            smtp: the connection.
            code: of the reply that ended this email.
            data: that to DATA. Whoever pipelined it may be asked for the content of an email
                without a recipient (RFC 2920, 3.1), and gives none.
        """
        if code == 421:
            self._close()
            return
        try:
            if data == GO_AHEAD:
                smtp.send(b".\r\n")
                smtp.getreply()
            smtp.rset()
        except (smtplib.SMTPException, OSError):
            self._close()

    def _close(self) -> None:
        smtp: smtplib.SMTP | None = getattr(self._local, "smtp", None)
        self._local.smtp = None
        if smtp is not None:
            smtp.close()


def _transparent(content: bytes) -> bytes:
    """The content as it travels: no line is a dot alone but the last (RFC 5321, 4.5.2).

    Args:
        content: with CRLF at its line ends.
    """
    if content.startswith(b"."):
        content = b"." + content
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    return content.replace(b"\r\n.", b"\r\n..") + end


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
