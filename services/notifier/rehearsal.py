"""The notifier for rehearsals: the same handler, without sending emails."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from services.notifier.bounds import Bounds, UncountedBounds
from services.notifier.composing import Email, compose
from services.notifier.handlers import Notifier
from services.notifier.mail.outgoing import Outcome, Outgoing, Sending
from services.notifier.senders import Sender
from shared.bus.consume.rehearsals import trying
from shared.bus.contract.message import Received


class FakeMailer:
    """Accepts every email, and sends none."""

    def send(self, emails: Sequence[Outgoing]) -> Sending:
        """Return a sending of which every email was accepted."""
        sending = Sending(emails, 0)
        for number in range(len(emails)):
            sending.settle(number, None)
        return sending


class RehearsedNotifier(Notifier):
    """Handles a batch without sending or counting its emails.

    Args:
        emails: receives the emails that would be sent, without codes and links' tokens.
        sender: the From header.
        bounds: the real notifier's.
    """

    def __init__(self, emails: list[trying.Email], sender: str, bounds: Bounds) -> None:
        super().__init__(FakeMailer(), sender, UncountedBounds(bounds))
        self._emails = emails

    def _compose(self, message: Received[Any], chosen: Sender) -> Email | None:
        return compose(message, chosen, hides=True)

    def _tried(self, email: Email, outcome: Outcome) -> None:
        """Count nothing."""

    def _send(self, session: Session, emails: Sequence[Email]) -> dict[UUID, Outcome]:
        taken = set(self._sent)  # sent before: recorded only
        outcomes = super()._send(session, emails)
        self._emails += [
            trying.Email(
                email.recipient,
                email.recipient_name,
                email.subject,
                email.text,
                refusal=str(outcomes[email.fact_id] or ""),
            )
            for email in emails
            if email.fact_id not in taken
        ]
        return outcomes
