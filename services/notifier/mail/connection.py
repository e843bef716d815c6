"""A connection to the mail server, kept open from one email to the next.

Giving up on the reply to the content too early sends an email twice (RFC 5321, 4.5.3.2.6).
"""

import re
import smtplib
import ssl
import time
from collections.abc import Callable, Sequence

from services.notifier.mail import client
from services.notifier.mail.client import Client
from services.notifier.mail.outgoing import Outgoing, SinkAwayError
from services.notifier.mail.replies import (
    Reply,
    describe,
    is_accepted,
    is_address_fault,
    is_quota,
    refusal,
    wants_content,
)
from shared.bus.contract.errors import Hold, Retry
from shared.config.settings import Settings

SINK_SECONDS = 5.0
SINK_RETRY_SECONDS = 30.0
"""How long a sink that hung is not tried again, so that its emails delay no other."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ORDINARY = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*").fullmatch


class Reach:
    """Whether the mail server accepts mail from us, as seen by all connections of one mailer.

    Attributes:
        sink_retry_at: when a sink that hung is tried again, on the monotonic clock.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._refuses = False
        self.sink_retry_at = 0.0

    def connecting(self) -> None:
        """Record that a connection is being opened."""
        if self._since is None:
            self._since = time.monotonic()

    def refused(self) -> None:
        """Record that the server accepts no email from us."""
        self._refuses = True
        self.connecting()

    def answered(self) -> None:
        """Record that the server answers, which does not show whether it accepts our sender."""
        if not self._refuses:
            self._since = None

    def reached(self) -> None:
        """Record that the server accepts our sender."""
        self._refuses = False
        self._since = None

    def lacks(self) -> str:
        """Return "mail", as `Hold` names it, if away for `THINKING_SECONDS`; else ""."""
        since = self._since
        is_away = since is not None and time.monotonic() - since >= client.THINKING_SECONDS
        return "mail" if is_away else ""


class MailConnection:
    """A connection to the mail server that is reopened when needed.

    Args:
        config: the `smtp_*` settings and `proof_sink`.
        sender: the envelope sender.
        reach: records how the server was found.
    """

    def __init__(self, config: Settings, sender: str, reach: Reach) -> None:
        self._config = config
        self._sender = sender
        self._mail_from = f"MAIL FROM:{_path(sender)}\r\n"
        self._reach = reach
        self._smtp: Client | None = None

    def check(self) -> None:
        """Connect, greet the mail server and sign in, as before an email.

        Raises:
            Hold: no mail server answers.
        """
        smtp, _ = self._connected(None)
        self._smtp = None
        self._reach.answered()
        try:
            smtp.quit()
        except (smtplib.SMTPException, OSError):
            smtp.close()

    def deliver(self, email: Outgoing, on_slow: Callable[[], None]) -> None:
        """Send an email.

        Args:
            email: the email.
            on_slow: called when a reply takes `THINKING_SECONDS`; once for each connection opened.

        Raises:
            UndeliverableError: it was refused permanently.
            Retry: it was refused temporarily, or the outcome is unknown.
            Hold: no mail server answers, or it accepts no email from us.
        """
        try:
            self._deliver(email, on_slow)
        except (smtplib.SMTPException, OSError) as error:
            raise self._unknown(error) from None

    def prove(self, email: Outgoing, on_slow: Callable[[], None]) -> None:
        """Send an email of the standing proof to its sink, once the mail server accepts our sender.

        The mail server never gets the recipient, which does not exist.

        Args:
            email: the email.
            on_slow: see `deliver`.

        Raises:
            SinkAwayError: the sink did not accept it, or hung within `SINK_RETRY_SECONDS`.
            Retry: whether our sender is accepted is unknown.
            Hold: no mail server answers, or it accepts no email from us.
        """
        try:
            smtp, (mail,) = self._begin((self._mail_from,), on_slow)
            self._reset(smtp, mail[0])
        except (smtplib.SMTPException, OSError) as error:
            raise self._unknown(error) from None
        started, retry_at = time.monotonic(), self._reach.sink_retry_at
        if started < retry_at:
            raise SinkAwayError(f"it hung; it is tried again in {retry_at - started:.0f} s")
        if retry_at:
            self._reach.sink_retry_at = started + SINK_RETRY_SECONDS  # one connection tries
        host, _, port = self._config.proof_sink.rpartition(":")
        try:
            with smtplib.SMTP(host, int(port), timeout=SINK_SECONDS) as sink:
                sink.sendmail(self._sender, [email.recipient], email.content)
        except (OSError, smtplib.SMTPException) as error:
            failed = time.monotonic()
            hung = failed - started >= SINK_SECONDS / 2
            self._reach.sink_retry_at = failed + SINK_RETRY_SECONDS if hung else 0.0
            raise SinkAwayError(f"{type(error).__name__}: {error}"[:200]) from None
        self._reach.sink_retry_at = 0.0

    def give_up(self) -> bool:
        """Abandon an email whose content was not sent yet; from any thread.

        Returns:
            Whether that is so. `deliver` then raises `Retry`, unless the reply arrives first.
        """
        smtp = self._smtp
        if smtp is None or smtp.has_content:
            return False
        smtp.is_given_up = True
        return True

    def close(self) -> None:
        """Drop the connection; the next email opens another."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()

    def _unknown(self, error: Exception) -> Retry:
        """Return the error for an unknown outcome; the connection's state is unknown as well."""
        self.close()
        return Retry(f"{type(error).__name__}: {error}"[:200])

    def _deliver(self, email: Outgoing, on_slow: Callable[[], None]) -> None:
        recipient = f"RCPT TO:{_path(email.recipient)}\r\n"
        smtp, (_, rcpt, data) = self._begin((self._mail_from, recipient, "DATA\r\n"), on_slow)
        if not is_accepted(rcpt[0]):
            self._reset(smtp, rcpt[0], data[0])
            raise refusal(*rcpt, is_of_address=is_address_fault(*rcpt))
        if not wants_content(data[0]):
            self._reset(smtp, data[0])
            raise self._refused(*data)
        smtp.has_content = True
        smtp.send(_dot_stuffed(email.content))
        code, text = smtp.reply(self._config.smtp_content_timeout)
        if not is_accepted(code):
            self._reset(smtp, code)
            raise self._refused(code, text)

    def _begin(
        self, commands: tuple[str, ...], on_slow: Callable[[], None]
    ) -> tuple[Client, list[Reply]]:
        """Send the commands that begin an email; the first names our sender.

        A server may close a connection that was idle or used often, with or without a reply. No
        email has been sent by then, so the commands are repeated once on a new connection.

        Returns:
            The connection and a reply for each command; a command that was not sent has the reply
            of the one that failed.

        Raises:
            Hold: a new connection refused the sender, which concerns us and not this email.
            SMTPException, OSError: the new connection failed.
        """
        while True:
            smtp, is_new = self._connected(on_slow)
            try:
                replies = _exchange(smtp, commands)
            except (smtplib.SMTPServerDisconnected, OSError):
                if is_new or smtp.is_given_up:
                    raise
                self.close()
                continue
            if is_accepted(replies[0][0]):
                self._reach.reached()
                return smtp, replies
            # The refusal may concern this connection only, so the next email gets another.
            self.close()
            if is_new:
                raise self._accepts_nothing(f"the sender was refused: {describe(*replies[0])}")

    def _refused(self, code: int, text: bytes) -> Exception:
        """Return the error for a refusal of DATA or of the content."""
        if is_quota(code, text):
            return self._accepts_nothing(describe(code, text))
        return refusal(code, text)

    def _accepts_nothing(self, sentence: str) -> Hold:
        self._reach.refused()
        return Hold(sentence, lacks="mail")

    def _connected(self, on_slow: Callable[[], None] | None) -> tuple[Client, bool]:
        """Return an open connection, and whether it is new.

        Raises:
            Hold: no mail server answers.
        """
        if self._smtp is not None:
            if self._smtp.is_idle():
                self._smtp.on_slow, self._smtp.has_content = on_slow, False
                return self._smtp, False
            self.close()
        self._reach.connecting()
        try:
            self._smtp = self._open(on_slow)
        except (smtplib.SMTPException, OSError) as error:
            where = f"{self._config.smtp_host}:{self._config.smtp_port}"
            sentence = f"no mail server at {where}: {type(error).__name__}: {error}"
            raise Hold(sentence[:200], lacks="mail") from None
        return self._smtp, True

    def _open(self, on_slow: Callable[[], None] | None) -> Client:
        config = self._config
        smtp = Client(config.smtp_host, config.smtp_port, config.smtp_timeout, on_slow)
        try:
            smtp.ehlo_or_helo_if_needed()
            if config.smtp_starttls:
                smtp.starttls(context=ssl.create_default_context())
                smtp.discard_unread()
                smtp.ehlo()
            if config.smtp_username:
                smtp.login(config.smtp_username, config.smtp_password)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _reset(self, smtp: Client, code: int, data: int = 0) -> None:
        """Reset the connection for the next email, or drop it if the server is closing it (421).

        Args:
            smtp: the connection.
            code: the reply code that ended this email.
            data: the reply code to DATA. A pipelining server may ask for the content of an email
                without a recipient (RFC 2920, 3.1), and gets none.
        """
        if code == 421:
            self.close()
            return
        try:
            if wants_content(data):
                smtp.send(b".\r\n")
                smtp.getreply()
            smtp.rset()
        except (smtplib.SMTPException, OSError):
            self.close()


def _path(address: str) -> str:
    """Return an address as MAIL and RCPT take it (RFC 5321, 4.1.2).

    `smtplib.quoteaddr` parses it as a header, which an ordinary address does not need.
    """
    return f"<{address}>" if _ORDINARY(address) else smtplib.quoteaddr(address)


def _dot_stuffed(content: bytes) -> bytes:
    """Return the content with leading dots doubled, and its end marker (RFC 5321, 4.5.2).

    Args:
        content: with CRLF line ends.
    """
    if content.startswith(b"."):
        content = b"." + content
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    return content.replace(b"\r\n.", b"\r\n..") + end


def _exchange(smtp: Client, commands: Sequence[str]) -> list[Reply]:
    """Send commands, each if the one before was accepted; the rest get that one's reply."""
    if smtp.has_extn("pipelining"):
        # RFC 2920: all in one packet, one wait instead of three.
        smtp.send("".join(commands))
        return _replies(smtp, len(commands))
    replies: list[Reply] = []
    for command in commands:
        if not replies or is_accepted(replies[-1][0]):
            smtp.send(command)
            replies.append(smtp.getreply())
        else:
            replies.append(replies[-1])
    return replies


def _replies(smtp: Client, count: int) -> list[Reply]:
    replies: list[Reply] = []
    while len(replies) < count:
        try:
            replies.append(smtp.getreply())
        except (smtplib.SMTPServerDisconnected, OSError):
            # A server hangs up after 421 (RFC 5321, 3.8), some after any refusal.
            if not replies or is_accepted(replies[-1][0]):
                raise
            replies.append(replies[-1])
    return replies
