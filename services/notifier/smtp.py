"""Sending by SMTP over connections that are kept open, several at a time.

A connection belongs to one thread. What the server's answer means: RFC 5321, 4.2.1; how long it may
take with it: 4.5.3.2. Giving up on the reply to the content too early sends an email twice.
"""

import smtplib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import structlog

from services.notifier import metrics
from shared.bus.contract.errors import Hold, Permanent, Retry, UnderWay
from shared.config.settings import Settings
from shared.synthetic import is_synthetic
from shared.telemetry import tracing

Reply = tuple[int, bytes]
GO_AHEAD = 354
CONNECT_SECONDS = 30.0
SINK_SECONDS = 5.0
# A server that may think for minutes is told from one that has vanished by asking its machine.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

log = structlog.get_logger()


class UndeliverableError(Permanent):
    """The mail server refused this email for good.

    Attributes:
        code: its reply code, 5xx.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class NotSentError(UndeliverableError):
    """It was not offered to the mail server, for a reason of ours; no message is blamed for it."""


class SinkAwayError(NotSentError):
    """Nobody waits for this email of the standing proof any more."""

    def __init__(self, text: str) -> None:
        super().__init__(550, f"the sink of the standing proof is away: {text}")


class Outgoing(NamedTuple):
    """One email on its way: the recipient's address, the content, and the trace it travels in."""

    recipient: str
    content: bytes
    traceparent: str | None = None


Outcome = Exception | None
"""What became of an email: None when it was taken, or `UndeliverableError`, `Retry`, or `Hold`."""


class Sending:
    """Some emails on their way.

    Args:
        emails: what to send.
        workers: how many threads begin with them; others may join when they are free.
    """

    def __init__(self, emails: Sequence[Outgoing], workers: int) -> None:
        self._emails = emails
        self._left = deque(range(len(emails)))
        self._workers = workers
        self._is_ceasing = False
        self._outcomes: dict[int, Outcome] = {}
        self._changed = threading.Condition()

    def outcome(self, number: int) -> Outcome:
        """What became of one; `UnderWay` as long as that is not known."""
        with self._changed:
            return self._outcomes.get(number, UnderWay("the mail server has not answered yet"))

    def wait(self, seconds: float) -> bool:
        """Wait until all is known, for so long at most; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(self._is_over, seconds)

    def cease(self) -> None:
        """Begin with no further email; those are held."""
        with self._changed:
            self._is_ceasing = True
            self._hold_what_is_left(Hold("the process stops"))

    def take(self) -> tuple[int, Outgoing] | None:
        """The next email for a thread to send; None when it has nothing more to do."""
        with self._changed:
            if self._left and not self._is_ceasing:
                number = self._left.popleft()
                return number, self._emails[number]
            self._workers -= 1
            return None

    def settle(self, number: int, outcome: Outcome) -> None:
        """Note what became of one."""
        with self._changed:
            self._outcomes[number] = outcome
            if self._is_over():
                self._changed.notify_all()

    def give_back(self, number: int, why: Hold) -> None:
        """Note that a thread has no mail server, and nothing more to do.

        Another thread may have one; when it is the last, all that is left is held.
        """
        with self._changed:
            self._left.appendleft(number)
            self._workers -= 1
            if self._is_ceasing or self._workers <= 0:
                self._hold_what_is_left(why)

    def _hold_what_is_left(self, why: Hold) -> None:
        self._outcomes |= dict.fromkeys(self._left, why)
        self._left.clear()
        self._changed.notify_all()

    def _is_over(self) -> bool:
        return len(self._outcomes) == len(self._emails)


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
        self._where = f"{config.smtp_host}:{config.smtp_port}"
        self._connections = connections
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="smtp")
        self._local = threading.local()
        self._busy = 0  # threads that have an email in hand
        self._counting = threading.Lock()

    def send(self, emails: Sequence[Outgoing]) -> Sending:
        """Begin to send emails, several at a time; returns where to see what becomes of them."""
        with self._counting:
            sending = Sending(emails, self._connections - self._busy)
        # A thread takes one email after the other, so that a server that thinks about one holds up
        # no other; and not a task for each: handing one over costs a tenth of sending it.
        for _ in range(self._connections):
            self._threads.submit(self._work, sending)
        return sending

    def look(self) -> None:
        """Greet the mail server and sign in, as before an email.

        Raises:
            Hold: there is none that answers.
        """
        try:
            smtp = self._open()
        except (smtplib.SMTPException, OSError) as error:
            raise self._no_server(error) from None
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()

    def _work(self, sending: Sending) -> None:
        while (taken := sending.take()) is not None:
            number, email = taken
            self._count(+1)
            with tracing.span("send email", kind="client", parent=email.traceparent) as span:
                outcome = self._try(email)
                if outcome is not None:
                    span.fail(outcome)
            self._count(-1)
            if isinstance(outcome, Hold):
                sending.give_back(number, outcome)
                return
            sending.settle(number, outcome)

    def _count(self, more: int) -> None:
        with self._counting:
            self._busy += more

    def _try(self, email: Outgoing) -> Outcome:
        try:
            if self._config.proof_sink and is_synthetic(email.recipient):
                self._prove(email)
                return None
            with metrics.smtp_seconds.time():
                self._deliver(email.recipient, email.content)
        except (Hold, Retry, Permanent) as error:
            return error
        except (smtplib.SMTPException, OSError) as error:
            # Whether it got there is not known, or the connection's state is not.
            self._close()
            return Retry(f"{type(error).__name__}: {error}"[:200])
        return None

    def _prove(self, email: Outgoing) -> None:
        """Give an email of the standing proof to its sink, once the mail server takes our sender.

        The mail server is never told of the recipient, who is nobody.
        """
        smtp, is_fresh = self._connection()
        try:
            reply = smtp.mail(self._sender)
        except (smtplib.SMTPServerDisconnected, OSError):
            if is_fresh:
                raise
            self._close()
            smtp, _ = self._connection()
            reply = smtp.mail(self._sender)
        self._reset(smtp, reply[0])
        if reply[0] != 250:
            raise Retry(f"the sender was refused: {_answer(*reply)}")
        host, _, port = self._config.proof_sink.rpartition(":")
        try:
            with smtplib.SMTP(host, int(port), timeout=SINK_SECONDS) as sink:
                sink.sendmail(self._sender, [email.recipient], email.content)
        except (OSError, smtplib.SMTPException) as error:
            raise SinkAwayError(f"{type(error).__name__}: {error}"[:200]) from None

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
        code, text = self._reply_to_content(smtp)
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

    def _reply_to_content(self, smtp: smtplib.SMTP) -> Reply:
        if smtp.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection was closed")
        smtp.sock.settimeout(self._config.smtp_content_timeout)
        reply = smtp.getreply()
        smtp.sock.settimeout(self._config.smtp_timeout)
        return reply

    def _connection(self) -> tuple[smtplib.SMTP, bool]:
        smtp: smtplib.SMTP | None = getattr(self._local, "smtp", None)
        if smtp is not None:
            return smtp, False
        try:
            self._local.smtp = smtp = self._open()
        except (smtplib.SMTPException, OSError) as error:
            raise self._no_server(error) from None
        return smtp, True

    def _no_server(self, error: Exception) -> Hold:
        sentence = f"no mail server at {self._where}: {type(error).__name__}: {error}"
        return Hold(sentence[:200], lacks="mail")

    def _open(self) -> smtplib.SMTP:
        config = self._config
        smtp = _Smtp(config.smtp_host, config.smtp_port, timeout=config.smtp_timeout)
        try:
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


class _Smtp(smtplib.SMTP):
    """A client that gives a machine less time to answer at all than the server to greet."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connected = socket.create_connection((host, port), min(timeout, CONNECT_SECONDS))
        connected.settimeout(timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in KEEPALIVE:
            connected.setsockopt(level, option, value)
        return connected


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
