"""One connection to the mail server, kept open from one email to the next.

What the server's answer means: RFC 5321, 4.2.1; how long it may take with
it: 4.5.3.2. Giving up on the reply to the content too early sends an email twice.
"""

import re
import select
import smtplib
import socket
import ssl
from collections.abc import Callable

from services.notifier.outgoing import Outgoing, SinkAwayError, UndeliverableError
from shared.bus.contract.errors import Hold, Retry
from shared.config.settings import Settings

Reply = tuple[int, bytes]
GO_AHEAD = 354
CONNECT_SECONDS = 30.0
SINK_SECONDS = 5.0
THINKING_SECONDS = 5.0
"""After which a server that has the content counts as one that thinks about it."""
# A server that may think for minutes is told from one that has vanished by asking its machine.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

_ENHANCED = re.compile(rb"(?:\A\s*|#)5\.(\d{1,3}\.\d{1,3})(?!\d)")
_OF_ADDRESS = frozenset(
    {
        b"1.1",  # no such mailbox
        b"1.2",  # no such domain
        b"1.3",  # no address by its form
        b"1.6",  # moved, and nobody knows where to
        b"1.10",  # the domain takes no mail (RFC 7505)
        b"2.1",  # the mailbox is closed
    }
)
"""Of RFC 3463, 3.2 and 3.3. Not 5.1.7 and 5.1.8, the sender's address, nor 5.1.0, "other".
A full mailbox (5.2.2), the content (5.3.4, 5.6) and policy (5.7) are no fault of the address."""


class MailConnection:
    """A conversation with the mail server.

    Args:
        config: the settings whose names begin with `smtp_`, and `proof_sink`.
        sender: the envelope's sender.
    """

    def __init__(self, config: Settings, sender: str) -> None:
        self._config = config
        self._sender = sender
        self._smtp: smtplib.SMTP | None = None

    def look(self) -> None:
        """Greet the mail server and sign in, as before an email.

        Raises:
            Hold: there is none that answers.
        """
        smtp, _ = self._connected()
        self._smtp = None
        try:
            smtp.quit()
        except (smtplib.SMTPException, OSError):
            smtp.close()

    def deliver(self, email: Outgoing, thinks: Callable[[], None]) -> None:
        """Give an email to the mail server.

        Args:
            email: to whom, and what.
            thinks: called once when the server has had the content for `THINKING_SECONDS`.

        Raises:
            UndeliverableError: it was refused for good.
            Retry: it was refused for now, or what became of it is not known.
            Hold: there is no mail server to talk to.
        """
        try:
            self._deliver(email, thinks)
        except (smtplib.SMTPException, OSError) as error:
            raise self._unknown(error) from None

    def prove(self, email: Outgoing) -> None:
        """Give an email of the standing proof to its sink, once the mail server takes our sender.

        The mail server is never told of the recipient, who is nobody.

        Raises:
            SinkAwayError: the sink does not take it.
            Retry: the sender was refused, or what became of it is not known.
            Hold: there is no mail server to talk to.
        """
        try:
            self._prove(email)
        except (smtplib.SMTPException, OSError) as error:
            raise self._unknown(error) from None

    def close(self) -> None:
        """Drop the connection; the next email opens another."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()

    def _unknown(self, error: Exception) -> Retry:
        # Whether it got there is not known, or the connection's state is not.
        self.close()
        return Retry(f"{type(error).__name__}: {error}"[:200])

    def _prove(self, email: Outgoing) -> None:
        smtp, is_fresh = self._connected()
        try:
            reply = smtp.mail(self._sender)
        except (smtplib.SMTPServerDisconnected, OSError):
            if is_fresh:
                raise
            self.close()
            smtp, _ = self._connected()
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

    def _deliver(self, email: Outgoing, thinks: Callable[[], None]) -> None:
        smtp, is_fresh = self._connected()
        try:
            mail, rcpt, data = self._begin(smtp, email.recipient)
        except (smtplib.SMTPServerDisconnected, OSError):
            if is_fresh:
                raise
            # A server may close what has been idle; no email has been given to it yet.
            self.close()
            smtp, _ = self._connected()
            mail, rcpt, data = self._begin(smtp, email.recipient)
        if mail[0] != 250:
            # About us, not about the recipient: even a 5xx is not this email's end.
            self._reset(smtp, mail[0], data[0])
            raise Retry(f"the sender was refused: {_answer(*mail)}")
        if rcpt[0] not in (250, 251):
            self._reset(smtp, rcpt[0], data[0])
            raise _refusal(*rcpt, is_of_address=is_address_fault(*rcpt))
        if data[0] != GO_AHEAD:
            self._reset(smtp, data[0])
            raise _refusal(*data)
        smtp.send(_transparent(email.content))
        code, text = self._reply_to_content(smtp, thinks)
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

    def _reply_to_content(self, smtp: smtplib.SMTP, thinks: Callable[[], None]) -> Reply:
        if smtp.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection was closed")
        patience = self._config.smtp_content_timeout
        answers = select.poll()
        answers.register(smtp.sock, select.POLLIN)
        if not answers.poll(1000 * min(patience, THINKING_SECONDS)):
            thinks()
            patience = max(patience - THINKING_SECONDS, 0.001)
        smtp.sock.settimeout(patience)
        reply = smtp.getreply()
        smtp.sock.settimeout(self._config.smtp_timeout)
        return reply

    def _connected(self) -> tuple[smtplib.SMTP, bool]:
        """The connection, and whether it was opened just now."""
        if self._smtp is not None:
            return self._smtp, False
        try:
            self._smtp = self._open()
        except (smtplib.SMTPException, OSError) as error:
            where = f"{self._config.smtp_host}:{self._config.smtp_port}"
            sentence = f"no mail server at {where}: {type(error).__name__}: {error}"
            raise Hold(sentence[:200], lacks="mail") from None
        return self._smtp, True

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
            self.close()
            return
        try:
            if data == GO_AHEAD:
                smtp.send(b".\r\n")
                smtp.getreply()
            smtp.rset()
        except (smtplib.SMTPException, OSError):
            self.close()


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


def is_address_fault(code: int, text: bytes) -> bool:
    """Whether a reply to RCPT says that the address itself is no good, now and later.

    By its enhanced status code (RFC 3463) alone, which RFC 2034 puts before the words and qmail
    behind a #: a bare 550 is as often a blocklist that we are on, and would cut off everybody.
    556 is a domain that takes no mail (RFC 7504).
    """
    if code == 556:
        return True
    found = _ENHANCED.search(text)
    return 500 <= code < 600 and found is not None and found[1] in _OF_ADDRESS


def _refusal(code: int, text: bytes, *, is_of_address: bool = False) -> Exception:
    if 500 <= code < 600:
        return UndeliverableError(code, _words(text), is_of_address=is_of_address)
    return Retry(_answer(code, text))


def _answer(code: int, text: bytes) -> str:
    return f"{code} {_words(text)}"


def _words(text: bytes) -> str:
    """The server's words, without the addresses in them.

    Nor anything that is no word: a relay may repeat what it likes, and PostgreSQL takes no NUL.
    """
    shown = "".join(c if c.isprintable() else " " for c in text.decode("ascii", "replace"))
    words = shown.split()
    return " ".join(word for word in words if "@" not in word)[:150]
