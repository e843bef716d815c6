"""The notifier as it is rehearsed: the same handler, and emails that nobody is sent."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from services.notifier.bounds import Bounds, UncountedBounds
from services.notifier.composing import Email, compose
from services.notifier.handlers import Notifier
from services.notifier.outgoing import Outcome, Outgoing, Sending
from services.notifier.senders import Sender
from shared.bus.consume.rehearsals import trying
from shared.bus.contract.message import Received


class NobodysMailer:
    """Takes every email, and sends none."""

    def send(self, emails: Sequence[Outgoing]) -> Sending:
        """Have taken them."""
        sending = Sending(emails, 0)
        for number in range(len(emails)):
            sending.settle(number, None)
        return sending


class RehearsedNotifier(Notifier):
    """Handles a batch of which nothing is sent or counted.

    Args:
        emails: is given those that would be sent, without what only their readers may have.
        sender: the From header.
        bounds: of the real one.
    """

    def __init__(self, emails: list[trying.Email], sender: str, bounds: Bounds) -> None:
        super().__init__(NobodysMailer(), sender, UncountedBounds(bounds))
        self._emails = emails

    def _compose(self, message: Received[Any], chosen: Sender) -> Email | None:
        return compose(message, chosen, hides=True)

    def _tried(self, email: Email, outcome: Outcome) -> None:
        """Not counted: it was not tried."""

    def _send(self, session: Session, emails: Sequence[Email]) -> dict[UUID, Outcome]:
        taken = set(self._sent)  # what a mail server has is written down, and not sent again
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
