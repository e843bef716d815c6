"""The ways to tell people: an email by the mail server, and a message to a webhook."""

import contextlib
import smtplib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from html import escape
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import structlog

from shared.config.settings import Settings

SECONDS = 8.0
"""For the greeting and each reply: somebody else may be waiting to be told the same."""


log = structlog.get_logger()


class NotToldError(Exception):
    """A message did not get through; in words that hold no secret."""


class Channel(Protocol):
    """One way.

    Attributes:
        name: in `ops_troubles.told` and in the log.
    """

    name: str

    def send(self, subject: str, text: str) -> None:
        """Tell.

        Raises:
            NotToldError: it did not get through, or nobody knows.
        """


class Mail:
    """By email, to all addresses at once; it is told once the mail server took it for one of them.

    Args:
        config: `alert_email_to`, `email_from`, and those that begin with `smtp_`.
    """

    name = "email"

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._to = [to.strip() for to in config.alert_email_to.split(",") if to.strip()]

    def send(self, subject: str, text: str) -> None:
        """Send it."""
        config = self._config
        _, sender = parseaddr(config.email_from)
        message = EmailMessage()
        message["From"], message["To"] = config.email_from, ", ".join(self._to)
        message["Subject"], message["Date"] = subject, format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or None)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834, 5.1
        message.set_content(text)
        try:
            smtp = smtplib.SMTP(config.smtp_host, config.smtp_port, timeout=SECONDS)
            try:
                if config.smtp_starttls:
                    smtp.starttls(context=ssl.create_default_context())
                if config.smtp_username:
                    smtp.login(config.smtp_username, config.smtp_password)
                refused = smtp.send_message(message, from_addr=sender, to_addrs=self._to)
                _leave(smtp)
            finally:
                smtp.close()
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            raise NotToldError(f"{config.smtp_host}: {type(error).__name__}") from None
        for address, (code, _) in refused.items():
            # Somebody has it. Tried again, all others would get it again, for as long as the
            # address is wrong.
            log.warning("alert_address_refused", address=_hidden(address), code=code)


class Webhook:
    """To an incoming webhook of Slack, Teams, or whatever takes their `{"text": ...}`.

    Args:
        url: its address, whose path is a secret.
    """

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or ""

    def send(self, subject: str, text: str) -> None:
        """Post it. A redirect is no success, and is not followed: it would lead anywhere."""
        # As Slack and Teams read it: else what stands in <> is a link, and & begins a character.
        body = {"text": escape(f"{subject}\n{text}", quote=False)}
        try:
            answer = httpx.post(
                self._url, json=body, timeout=SECONDS, follow_redirects=False, trust_env=False
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NotToldError(f"{self._host}: {type(error).__name__}") from None
        if not answer.is_success:
            raise NotToldError(f"{self._host} answered {answer.status_code}")


def _leave(smtp: smtplib.SMTP) -> None:
    """Say goodbye; whatever the answer is, what was taken before stays so (RFC 5321, 4.1.1.4)."""
    with contextlib.suppress(smtplib.SMTPException, OSError):
        smtp.quit()


def _hidden(address: str) -> str:
    """Enough of an address for who has set it to know which one it is."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}•••@{domain}"


def channels(config: Settings) -> Sequence[Channel]:
    """Those that are set."""
    found: list[Channel] = []
    if config.alert_email_to:
        found.append(Mail(config))
    if config.alert_webhook_url:
        found.append(Webhook(config.alert_webhook_url))
    return found
