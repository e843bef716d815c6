"""The rows of emails in the database: which were sent, leased or erased, and their outcomes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from services.notifier import SOURCE
from services.notifier.composing import Email
from services.notifier.mail import mime
from services.notifier.mail.outgoing import NotSentError, Outcome, UndeliverableError
from services.notifier.suppression import records
from services.notifier.suppression.records import Refused
from shared import erased
from shared.bus import outbox
from shared.bus.contract.events import EmailUndeliverable
from shared.bus.contract.message import message_for
from shared.db import arrays


class Known(NamedTuple):
    """What the database contains about some emails.

    Attributes:
        sent: the facts whose email was sent.
        leased: the facts with a lease.
        erased: the orders whose customer's data was erased. A fact that waited, or that the journal
            replays, still has the address.
        run_out: the facts with a lease that was not renewed in time.
    """

    sent: set[UUID]
    leased: set[UUID]
    erased: set[UUID]
    run_out: set[UUID]


def known(session: Session, emails: Sequence[Email]) -> Known:
    """Return what the database contains about emails."""
    found = Known(set(), set(), set(), set())
    if emails:
        values = {
            "facts": arrays.uuids(email.fact_id for email in emails),
            "orders": arrays.uuids({e.order_id for e in emails if e.order_id is not None}),
            "erased": erased.ADDRESS,
        }
        for kind, id_ in session.execute(_KNOWN, values):
            found[kind].add(id_)
    return found


def record(
    session: Session, emails: Sequence[Email], outcomes: Mapping[UUID, Outcome], sender: str
) -> None:
    """Record the outcomes of emails: their rows, refused addresses, and facts about refusals.

    Args:
        session: the transaction.
        emails: the emails.
        outcomes: by fact; temporary ones leave no trace.
        sender: the From header.
    """
    rows = []
    facts = []
    refused = []
    for email in emails:
        error = outcomes[email.fact_id]
        if error is None:
            rows.append((email, "sent", ""))
        elif isinstance(error, UndeliverableError):
            rows.append((email, error.state, str(error)))
            if isinstance(error, NotSentError):
                continue
            if error.is_of_address:
                refused.append(Refused(email, error))
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
                    source=SOURCE,
                    correlation_id=email.subject_id,
                    traceparent=email.traceparent,
                )
            )
    if rows:
        session.execute(
            _RECORD,
            {
                "fact_id": arrays.uuids(email.fact_id for email, _, _ in rows),
                "subject_id": arrays.texts(email.subject_id for email, _, _ in rows),
                "recipient": arrays.texts(email.recipient for email, _, _ in rows),
                "template": arrays.texts(email.template for email, _, _ in rows),
                "message_id": arrays.texts(mime.message_id(email, sender) for email, _, _ in rows),
                "state": arrays.texts(state for _, state, _ in rows),
                "response": arrays.texts(response for _, _, response in rows),
            },
        )
    records.refuse(session, refused)
    outbox.add(session, facts)


# The number is the place in `Known`.
_KNOWN = text("""
    SELECT 0, fact_id FROM email_deliveries
    WHERE fact_id = ANY(CAST(:facts AS uuid[])) AND state = 'sent'
    UNION ALL
    SELECT CASE WHEN good_until > clock_timestamp() THEN 1 ELSE 3 END, fact_id FROM email_leases
    WHERE fact_id = ANY(CAST(:facts AS uuid[]))
    UNION ALL
    SELECT 2, id FROM orders
    WHERE id = ANY(CAST(:orders AS uuid[])) AND customer_email = :erased
""")
# A row has its fact's id: a fact has one recipient at a time, which an edited dead letter may
# change.
_RECORD = text("""
    INSERT INTO email_deliveries
        (id, fact_id, subject_id, recipient, template, message_id, state, response)
    SELECT fact_id, fact_id, subject_id, recipient, template, message_id, state, response
    FROM unnest(CAST(:fact_id AS uuid[]), CAST(:subject_id AS text[]), CAST(:recipient AS text[]),
                CAST(:template AS text[]), CAST(:message_id AS text[]), CAST(:state AS text[]),
                CAST(:response AS text[]))
         AS given (fact_id, subject_id, recipient, template, message_id, state, response)
    ON CONFLICT (id)
        DO UPDATE SET recipient = excluded.recipient, message_id = excluded.message_id,
            state = excluded.state, response = excluded.response, at = now()
""")
