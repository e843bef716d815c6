"""One connection to the mail server, kept open from one email to the next.

What the server's answer means: RFC 5321, 4.2.1; how long it may take with
it: 4.5.3.2. Giving up on the reply to the content too early sends an email twice.
"""

import re
import select
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Sequence

from services.notifier.outgoing import Outgoing, SinkAwayError, UndeliverableError
from shared.bus.contract.errors import Hold, Retry
from shared.config.settings import Settings

Reply = tuple[int, bytes]
CONNECT_SECONDS = 30.0
SINK_SECONDS = 5.0
THINKING_SECONDS = 5.0
"""After which a server that has not answered a command counts as one that thinks about it."""
MOST_LINES = 100
"""Of one reply, and `MOST_BYTES` of one line: who goes on for ever answers nothing."""
MOST_BYTES = 8_192
RECORD = 16_384
"""As much as TLS hands over at once: nothing is left where no poll sees it."""
# A server that may think for minutes is told from one that has vanished by asking its machine; and
# while something is unacknowledged, when nobody asks, by how long it is (milliseconds).
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ORDINARY = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*").fullmatch
_ENHANCED = re.compile(rb"(?:\A\s*|#)([245])\.(\d{1,3}\.\d{1,3})(?!\d)")
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


class Reach:
    """Whether the mail server takes mail of us at all, as the connections of one mailer find it."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._refuses = False

    def asked(self) -> None:
        """A connection is being opened."""
        if self._since is None:
            self._since = time.monotonic()

    def refused(self) -> None:
        """It takes nothing of us."""
        self._refuses = True
        self.asked()

    def answered(self) -> None:
        """It is there, which says nothing of whether it takes our sender."""
        if not self._refuses:
            self._since = None

    def reached(self) -> None:
        """It answers, and takes our sender."""
        self._refuses = False
        self._since = None

    def lacks(self) -> str:
        """What is away, as `Hold` names it, once it has been for `THINKING_SECONDS`."""
        since = self._since
        is_away = since is not None and time.monotonic() - since >= THINKING_SECONDS
        return "mail" if is_away else ""


class MailConnection:
    """A conversation with the mail server.

    Args:
        config: the settings whose names begin with `smtp_`, and `proof_sink`.
        sender: the envelope's sender.
        reach: told how the server is found.
    """

    def __init__(self, config: Settings, sender: str, reach: Reach) -> None:
        self._config = config
        self._sender = sender
        self._mail_from = f"MAIL FROM:{_path(sender)}\r\n"
        self._reach = reach
        self._smtp: _Smtp | None = None

    def look(self) -> None:
        """Greet the mail server and sign in, as before an email.

        Raises:
            Hold: there is none that answers.
        """
        smtp, _ = self._connected(None)
        self._smtp = None
        self._reach.answered()
        try:
            smtp.quit()
        except (smtplib.SMTPException, OSError):
            smtp.close()

    def deliver(self, email: Outgoing, thinks: Callable[[], None]) -> None:
        """Give an email to the mail server.

        Args:
            email: to whom, and what.
            thinks: called when the server has taken `THINKING_SECONDS` over a reply, whichever;
                more than once where it is opened anew.

        Raises:
            UndeliverableError: it was refused for good.
            Retry: it was refused for now, or what became of it is not known.
            Hold: there is no mail server to talk to, or it takes nothing of us.
        """
        try:
            self._deliver(email, thinks)
        except (smtplib.SMTPException, OSError) as error:
            raise self._unknown(error) from None

    def prove(self, email: Outgoing, thinks: Callable[[], None]) -> None:
        """Give an email of the standing proof to its sink, once the mail server takes our sender.

        The mail server is never told of the recipient, who is nobody.

        Args:
            email: to whom, and what.
            thinks: see `deliver`.

        Raises:
            SinkAwayError: the sink does not take it.
            Retry: whether our sender is taken is not known.
            Hold: there is no mail server to talk to, or it takes nothing of us.
        """
        try:
            smtp, (mail,) = self._begun((self._mail_from,), thinks)
            self._reset(smtp, mail[0])
        except (smtplib.SMTPException, OSError) as error:
            raise self._unknown(error) from None
        host, _, port = self._config.proof_sink.rpartition(":")
        try:
            with smtplib.SMTP(host, int(port), timeout=SINK_SECONDS) as sink:
                sink.sendmail(self._sender, [email.recipient], email.content)
        except (OSError, smtplib.SMTPException) as error:
            raise SinkAwayError(f"{type(error).__name__}: {error}"[:200]) from None

    def close(self) -> None:
        """Drop the connection; the next email opens another."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()

    def _unknown(self, error: Exception) -> Retry:
        # Whether it got there is not known, or the connection's state is not.
        self.close()
        return Retry(f"{type(error).__name__}: {error}"[:200])

    def _deliver(self, email: Outgoing, thinks: Callable[[], None]) -> None:
        recipient = f"RCPT TO:{_path(email.recipient)}\r\n"
        smtp, (_, rcpt, data) = self._begun((self._mail_from, recipient, "DATA\r\n"), thinks)
        if not _is_taken(rcpt[0]):
            self._reset(smtp, rcpt[0], data[0])
            raise _refusal(*rcpt, is_of_address=is_address_fault(*rcpt))
        if not _goes_on(data[0]):
            self._reset(smtp, data[0])
            raise self._refused(*data)
        smtp.send(_transparent(email.content))
        code, text = smtp.reply(self._config.smtp_content_timeout)
        if not _is_taken(code):
            self._reset(smtp, code)
            raise self._refused(code, text)

    def _begun(
        self, commands: tuple[str, ...], thinks: Callable[[], None]
    ) -> tuple["_Smtp", list[Reply]]:
        """Say the commands that begin an email, of which the first names our sender.

        A server may close what has been idle, or was used often, with a word or without; no email
        has been given to it yet, and it is asked once more by a connection of its own.

        Returns:
            The connection, and the reply to each; what was not said any more has the reply of what
            failed.

        Raises:
            Hold: a new connection was refused the sender, which is about us and not about this
                email.
        """
        while True:
            smtp, is_fresh = self._connected(thinks)
            try:
                replies = _dialogue(smtp, commands)
            except (smtplib.SMTPServerDisconnected, OSError):
                if is_fresh:
                    raise
                self.close()
                continue
            if _is_taken(replies[0][0]):
                self._reach.reached()
                return smtp, replies
            # Whether it is about us or about this connection, the next email has another.
            self.close()
            if is_fresh:
                raise self._takes_nothing(f"the sender was refused: {_answer(*replies[0])}")

    def _refused(self, code: int, text: bytes) -> Exception:
        """What a refusal of DATA or of the content means."""
        if is_quota(code, text):
            return self._takes_nothing(_answer(code, text))
        return _refusal(code, text)

    def _takes_nothing(self, sentence: str) -> Hold:
        self._reach.refused()
        return Hold(sentence, lacks="mail")

    def _connected(self, thinks: Callable[[], None] | None) -> tuple["_Smtp", bool]:
        """The connection, and whether it was opened just now."""
        if self._smtp is not None:
            if self._smtp.is_idle():
                self._smtp.thinks = thinks
                return self._smtp, False
            self.close()
        self._reach.asked()
        try:
            self._smtp = self._open(thinks)
        except (smtplib.SMTPException, OSError) as error:
            where = f"{self._config.smtp_host}:{self._config.smtp_port}"
            sentence = f"no mail server at {where}: {type(error).__name__}: {error}"
            raise Hold(sentence[:200], lacks="mail") from None
        return self._smtp, True

    def _open(self, thinks: Callable[[], None] | None) -> "_Smtp":
        config = self._config
        smtp = _Smtp(config.smtp_host, config.smtp_port, config.smtp_timeout, thinks)
        try:
            smtp.ehlo_or_helo_if_needed()
            if config.smtp_starttls:
                smtp.starttls(context=ssl.create_default_context())
                smtp.forget()
                smtp.ehlo()
            if config.smtp_username:
                smtp.login(config.smtp_username, config.smtp_password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _reset(self, smtp: "_Smtp", code: int, data: int = 0) -> None:
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
            if _goes_on(data):
                smtp.send(b".\r\n")
                smtp.getreply()
            smtp.rset()
        except (smtplib.SMTPException, OSError):
            self.close()


class _Smtp(smtplib.SMTP):
    """A client whose every reply is bounded, in its lines and in its time as a whole.

    Args:
        host: the server's.
        port: the server's.
        timeout: seconds for a command and its reply; for the machine to answer at all less.
        thinks: called once, by the first reply that takes `THINKING_SECONDS`.
    """

    _unread = b""

    def __init__(
        self, host: str, port: int, timeout: float, thinks: Callable[[], None] | None
    ) -> None:
        self.thinks = thinks
        super().__init__(host, port, timeout=timeout)

    def is_idle(self) -> bool:
        """Whether the server has been silent since its last reply.

        It has nothing to say but goodbye, which must not be read as the reply to what comes next.
        """
        if self.sock is None or self._unread:
            return False
        said = select.poll()
        said.register(self.sock, select.POLLIN)
        if not said.poll(0):
            return True
        try:
            return not self._receive(0.0)  # TLS has words of its own, such as its tickets
        except (smtplib.SMTPException, OSError):
            return False

    def forget(self) -> None:
        """Take nothing for a reply that came before TLS began."""
        self._unread = b""

    def getreply(self) -> Reply:
        """Read a reply; the timeout is that of a command."""
        return self.reply(self.timeout)

    def reply(self, patience: float) -> Reply:
        """Read a reply.

        Args:
            patience: seconds for the whole of it.

        Raises:
            SMTPServerDisconnected: the connection is at its end.
            SMTPException: the reply does not come to an end.
        """
        started = time.monotonic()
        lines: list[bytes] = []
        while len(lines) < MOST_LINES:
            line, is_whole, rest = self._unread.partition(b"\n")
            if is_whole:
                self._unread = rest
                lines.append(line[4:].strip())
                if line[3:4] != b"-" or not line[:3].isdigit():
                    return (int(line[:3]) if line[:3].isdigit() else -1), b"\n".join(lines)
                continue
            took = time.monotonic() - started
            if self.thinks is not None and took >= THINKING_SECONDS:
                thinks, self.thinks = self.thinks, None
                thinks()
            if took >= patience or len(line) > MOST_BYTES:
                break
            waits = patience if self.thinks is None else min(THINKING_SECONDS, patience)
            self._unread += self._receive(waits - took)
        self.close()
        raise smtplib.SMTPException(f"no end of a reply within {patience:g} s")

    def _receive(self, seconds: float) -> bytes:
        """What comes within this time; nothing may have."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection was closed")
        self.sock.settimeout(max(seconds, 0.001))
        try:
            came = self.sock.recv(RECORD)
        except TimeoutError as error:
            if error.errno is not None:
                raise  # the machine has acknowledged nothing for too long
            return b""
        finally:
            self.sock.settimeout(self.timeout)
        if not came:
            self.close()
            raise smtplib.SMTPServerDisconnected("the server closed the connection")
        return came

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connected = socket.create_connection((host, port), min(timeout, CONNECT_SECONDS))
        connected.settimeout(timeout)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in KEEPALIVE:
            connected.setsockopt(level, option, value)
        return connected


def _path(address: str) -> str:
    """An address as MAIL and RCPT name it (RFC 5321, 4.1.2).

    The standard library takes any header apart for it; of an ordinary address nothing is to be
    taken apart.
    """
    return f"<{address}>" if _ORDINARY(address) else smtplib.quoteaddr(address)


def _transparent(content: bytes) -> bytes:
    """The content as it travels: no line is a dot alone but the last (RFC 5321, 4.5.2).

    Args:
        content: with CRLF at its line ends.
    """
    if content.startswith(b"."):
        content = b"." + content
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    return content.replace(b"\r\n.", b"\r\n..") + end


def _dialogue(smtp: _Smtp, commands: Sequence[str]) -> list[Reply]:
    """Say commands, each if the one before was taken; the rest have the reply of what was not."""
    if smtp.has_extn("pipelining"):
        # RFC 2920: all in one packet, one wait instead of three.
        smtp.send("".join(commands))
        return _replies(smtp, len(commands))
    replies: list[Reply] = []
    for command in commands:
        if not replies or _is_taken(replies[-1][0]):
            smtp.send(command)
            replies.append(smtp.getreply())
        else:
            replies.append(replies[-1])
    return replies


def _replies(smtp: _Smtp, count: int) -> list[Reply]:
    replies: list[Reply] = []
    while len(replies) < count:
        try:
            replies.append(smtp.getreply())
        except (smtplib.SMTPServerDisconnected, OSError):
            # With 421 the server hangs up (RFC 5321, 3.8), and others do with whatever they refuse.
            if not replies or _is_taken(replies[-1][0]):
                raise
            replies.append(replies[-1])
    return replies


def _is_taken(code: int) -> bool:
    # By the first digit: nobody knows all that servers say (RFC 5321, 4.2).
    return 200 <= code < 300


def _goes_on(code: int) -> bool:
    return 300 <= code < 400


def is_address_fault(code: int, text: bytes) -> bool:
    """Whether a reply to RCPT says that the address itself is no good, now and later.

    By its enhanced status code (RFC 3463) alone, which RFC 2034 puts before the words and qmail
    behind a #: a bare 550 is as often a blocklist that we are on, and would cut off everybody.
    556 is a domain that takes no mail (RFC 7504).
    """
    return code == 556 or (500 <= code < 600 and _detail(b"5", text) in _OF_ADDRESS)


def is_quota(code: int, text: bytes) -> bool:
    """Whether a reply to DATA or to the content says that we have sent too much, whatever it was.

    Amazon SES says `454 4.7.0 Throttling failure`, Gmail `550 5.4.5 Daily sending limit exceeded`.
    No other: 4.7.1 is as often the greylisting of one recipient, and 4.3.0 a filter that stumbles
    over one email, and neither may hold up the rest.
    """
    return (
        (code == 454 and _detail(b"4", text) == b"7.0")
        or (400 <= code < 500 and _detail(b"4", text) == b"4.5")
        or (500 <= code < 600 and _detail(b"5", text) == b"4.5")
    )


def _detail(kind: bytes, text: bytes) -> bytes:
    """What an enhanced status code of this class says behind its first dot; empty without one."""
    found = _ENHANCED.search(text)
    return found[2] if found is not None and found[1] == kind else b""


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
