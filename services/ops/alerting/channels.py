"""The channels of alerts: an email by the mail server, and a message to a webhook."""

import contextlib
import smtplib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from html import escape
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import structlog

from shared.config.settings import Settings

_FLOWS = (".logic.azure.com", ".powerplatform.com", ".powerautomate.com", ".flow.microsoft.com")
"""Host suffixes of Power Automate, which runs the workflows of Teams."""
_CARD = "application/vnd.microsoft.card.adaptive"
SECONDS = 8.0
"""For the greeting and each reply; other alerts wait meanwhile."""


log = structlog.get_logger()


class NotSentError(Exception):
    """A message was not sent; the text contains no secret."""


class Channel(Protocol):
    """Sends alerts one way.

    Attributes:
        name: in `ops_troubles.told` and in the log.
    """

    name: str

    def send(self, subject: str, text: str) -> str:
        """Send a message; return the server's answer as a readable message.

        Raises:
            NotSentError: it was not sent, or the outcome is unknown.
        """


class Mail:
    """Sends one email to all addresses; it counts as sent once the server accepts one of them.

    Args:
        config: `alert_email_to`, `email_from`, and those that begin with `smtp_`.
    """

    name = "email"

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._to = [to.strip() for to in config.alert_email_to.split(",") if to.strip()]

    def send(self, subject: str, text: str) -> str:
        """Send one email; see `Channel`."""
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
            raise NotSentError(f"{config.smtp_host}: {type(error).__name__}") from None
        for address, (code, _) in refused.items():
            # At least one address has it. A retry would mail that one again and again, for as long
            # as the refused address is wrong.
            log.warning("alert_address_refused", address=_hidden(address), code=code)
        took = f"{config.smtp_host} took it for {len(self._to) - len(refused)} of {len(self._to)}"
        codes = ", ".join(f"{_hidden(to)}: {code}" for to, (code, _) in refused.items())
        return f"{took} addresses" + (f"; refused: {codes}" if codes else "")


class Webhook:
    """Posts `{"text": ...}`, as Slack reads it, and a card for a workflow of Teams.

    Args:
        url: its address, whose path is a secret.
    """

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url
        self._host = urlsplit(url).hostname or ""

    def send(self, subject: str, text: str) -> str:
        """Post one message; see `Channel`. A redirect fails: its target could be any host."""
        is_flow = f".{self._host}".endswith(_FLOWS)
        # Slack reads <> as a link and & as the start of a character reference.
        plain: dict[str, Any] = {"text": escape(f"{subject}\n{text}", quote=False)}
        # A custom flow may post the text; the template's reads the card only.
        body = plain | _card(subject, text) if is_flow else plain
        try:
            answer = httpx.post(
                self._url, json=body, timeout=SECONDS, follow_redirects=False, trust_env=False
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NotSentError(f"{self._host}: {type(error).__name__}") from None
        if not answer.is_success:
            raise NotSentError(f"{self._host} answered {answer.status_code}")
        answered = f"{self._host} answered {answer.status_code}"
        return f"{answered}: that is before its flow has posted anything" if is_flow else answered


def _card(subject: str, text: str) -> dict[str, Any]:
    """Return the card that the workflow "Send webhook alerts to a channel" posts.

    It answers 202 to any body, and posts cards only. Each line is a separate block, of a kind that
    does not interpret Markdown: a reason could contain links.

    https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
    """
    lines: list[dict[str, Any]] = [{"text": subject, "weight": "Bolder"}]
    lines += [{"text": line} for line in text.splitlines() if line]
    body = [{"type": "RichTextBlock", "inlines": [{"type": "TextRun"} | line]} for line in lines]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
        "msteams": {"width": "Full"},
    }
    return {"type": "message", "attachments": [{"contentType": _CARD, "content": card}]}


def _leave(smtp: smtplib.SMTP) -> None:
    """Send QUIT; its answer does not affect the accepted message (RFC 5321, 4.1.1.4)."""
    with contextlib.suppress(smtplib.SMTPException, OSError):
        smtp.quit()


def _hidden(address: str) -> str:
    """Mask an address so that the operator who configured it recognizes it."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}•••@{domain}"


def channels(config: Settings) -> Sequence[Channel]:
    """Return the configured channels."""
    found: list[Channel] = []
    if config.alert_email_to:
        found.append(Mail(config))
    if config.alert_webhook_url:
        found.append(Webhook(config.alert_webhook_url))
    return found
