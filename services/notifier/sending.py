"""The batch handler: facts in, emails out, each fact told to each recipient once.

An email is out of the database's reach, so three things stand against a second one: the inbox, the
unique delivery row, and this process's memory of what it sent in a transaction that did not commit.
Only a crash between the mail server's 250 and the commit can double one, under the same Message-ID.
"""

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.notifier import metrics, mime
from services.notifier.composing import Email, compose
from services.notifier.smtp import Mailer, Outgoing, UndeliverableError
from shared.bus.batch import Failures
from shared.bus.events import EmailUndeliverable
from shared.bus.message import Received, message_for
from shared.bus.retry import Hold, Permanent
from shared.db import arrays
from shared.outbox import store

MAX_REMEMBERED = 10_000


class Notifier:
    """Handles the batches of one subscription.

    Args:
        mailer: how emails leave.
        sender: the From header.
    """

    def __init__(self, mailer: Mailer, sender: str) -> None:
        self._mailer = mailer
        self._sender = sender
        self._sent: OrderedDict[UUID, None] = OrderedDict()

    def notify(self, session: Session, messages: Sequence[Received[Any]]) -> Failures:
        """Send the email of each fact, and write down what became of it.

        Returns:
            The facts whose email was refused, for now or for good.

        Raises:
            Hold: there is no mail server. What was sent before that is remembered.
        """
        failures: dict[UUID, Exception] = {}
        emails: list[Email] = []
        for message in messages:
            try:
                email = compose(message)
            except Permanent as error:
                failures[message.id] = error
                continue
            if email is not None:
                emails.append(email)
        delivered = _delivered(session, emails)
        emails = [email for email in emails if email.fact_id not in delivered]
        outcomes = self._send(emails)
        held = next((error for error in outcomes.values() if isinstance(error, Hold)), None)
        if held is not None:
            raise held
        failures |= {id_: error for id_, error in outcomes.items() if error is not None}
        self._write_down(session, emails, outcomes)
        return failures

    def _send(self, emails: Sequence[Email]) -> dict[UUID, Exception | None]:
        now = datetime.now(UTC)
        unsent = [email for email in emails if email.fact_id not in self._sent]
        results = self._mailer.send(
            [
                Outgoing(
                    email.recipient, mime.assemble(email, self._sender, now), email.traceparent
                )
                for email in unsent
            ]
        )
        outcomes: dict[UUID, Exception | None] = dict.fromkeys(email.fact_id for email in emails)
        for email, error in zip(unsent, results, strict=True):
            outcomes[email.fact_id] = error
            metrics.tried(email.template, error)
            if error is None:
                self._sent[email.fact_id] = None
                if len(self._sent) > MAX_REMEMBERED:
                    self._sent.popitem(last=False)
        return outcomes

    def _write_down(
        self,
        session: Session,
        emails: Sequence[Email],
        outcomes: dict[UUID, Exception | None],
    ) -> None:
        rows = []
        facts = []
        for email in emails:
            error = outcomes[email.fact_id]
            if error is None:
                rows.append((email, "sent", ""))
            elif isinstance(error, UndeliverableError):
                rows.append((email, "undeliverable", str(error)))
                fact = EmailUndeliverable(
                    fact_id=email.fact_id,
                    fact_type=email.fact_type,
                    template=email.template,
                    smtp_code=error.code,
                    reason=str(error),
                )
                facts.append(
                    message_for(
                        fact,
                        source="services.notifier",
                        correlation_id=email.subject_id,
                        traceparent=email.traceparent,
                    )
                )
        if rows:
            session.execute(
                _WRITE_DOWN,
                {
                    "fact_id": arrays.uuids(email.fact_id for email, _, _ in rows),
                    "subject_id": arrays.texts(email.subject_id for email, _, _ in rows),
                    "recipient": arrays.texts(email.recipient for email, _, _ in rows),
                    "template": arrays.texts(email.template for email, _, _ in rows),
                    "message_id": arrays.texts(
                        mime.message_id(email, self._sender) for email, _, _ in rows
                    ),
                    "state": arrays.texts(state for _, state, _ in rows),
                    "response": arrays.texts(response for _, _, response in rows),
                },
            )
        store.add(session, facts)


def _delivered(session: Session, emails: Sequence[Email]) -> set[UUID]:
    """The facts among these whose email was sent before."""
    if not emails:
        return set()
    rows = session.execute(_SENT, {"ids": arrays.uuids(email.fact_id for email in emails)})
    return set(rows.scalars())


_SENT = text("""
    SELECT fact_id FROM email_deliveries
    WHERE fact_id = ANY(CAST(:ids AS uuid[])) AND state = 'sent'
""")
# The row's own id is that of the fact: a fact has one recipient.
_WRITE_DOWN = text("""
    INSERT INTO email_deliveries
        (id, fact_id, subject_id, recipient, template, message_id, state, response)
    SELECT fact_id, fact_id, subject_id, recipient, template, message_id, state, response
    FROM unnest(CAST(:fact_id AS uuid[]), CAST(:subject_id AS text[]), CAST(:recipient AS text[]),
                CAST(:template AS text[]), CAST(:message_id AS text[]), CAST(:state AS text[]),
                CAST(:response AS text[]))
         AS given (fact_id, subject_id, recipient, template, message_id, state, response)
    ON CONFLICT (fact_id, recipient)
        DO UPDATE SET state = excluded.state, response = excluded.response, at = now()
""")
