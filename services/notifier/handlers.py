"""The batch handler: facts in, emails out, each fact told to each recipient once.

An email is out of the database's reach, so three things stand against a second one: the inbox, the
unique delivery row, and this process's memory of what it sent in a transaction that did not commit.
What the mail server took is written down even while the rest is held; and when the process has to
stop before the database is back, the facts go back with a note of it. What it thinks about is held
by a lease, which other notifiers see. So only a crash between the mail server's 250 and the commit
can double one, under the same Message-ID.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from services.notifier import SOURCE, leases, metrics, mime, senders
from services.notifier.bounds import Bounds
from services.notifier.composing import Email, account_of, compose, overdue
from services.notifier.outgoing import (
    NotBegunError,
    NotSentError,
    Outcome,
    Outgoing,
    Sending,
    Sends,
    UndeliverableError,
)
from services.notifier.senders import OURS, Sender
from services.notifier.suppression import records
from services.notifier.suppression.records import Refused
from shared import erased
from shared.bus import outbox
from shared.bus.consume.batch import Failures, process_stopping
from shared.bus.contract.errors import Hold, Permanent, UnderWay
from shared.bus.contract.events import EmailUndeliverable
from shared.bus.contract.message import Received, message_for
from shared.db import arrays
from shared.db.session import IDLE_SECONDS, still_here

MAX_REMEMBERED = 10_000
WRITE_DOWN_SECONDS = 5.0
"""After which what was taken is written down, whatever is not answered yet; also after a stop."""
STOPS = Hold("the process stops")
LOOK_SECONDS = 0.1  # how long a stop may go unnoticed


class Notifier:
    """Handles the batches of one subscription.

    Args:
        mailer: how emails leave.
        sender: the From header.
        bounds: what one person may get.
    """

    def __init__(self, mailer: Sends, sender: str, bounds: Bounds) -> None:
        self._mailer = mailer
        self._sender = sender
        self._bounds = bounds
        self._sent: OrderedDict[UUID, None] = OrderedDict()
        # Some of it may end in the thread of `keep`: it is asked, or copied, and never walked.
        self._under_way: dict[UUID, tuple[Sending, int]] = {}
        self._leased: dict[UUID, Email] = {}
        self._lost: set[UUID] = set()  # those under way that are in hand no more
        self._last_look: float | None = None  # until when a stop waits, on the monotonic clock

    def happened(self, ids: Collection[UUID]) -> Collection[UUID]:
        """Those of these facts whose email the mail server has taken.

        What it thinks about when the process has to stop is given its last seconds, once.
        """
        asked = set(ids)
        under_way = {id_: found for id_ in asked if (found := self._under_way.get(id_))}
        if self._last_look is None:
            self._last_look = time.monotonic() + WRITE_DOWN_SECONDS
        sendings = {sending for sending, _ in under_way.values()}
        for sending in sendings:
            sending.cease(STOPS)
        for sending in sendings:
            sending.wait(max(0.0, self._last_look - time.monotonic()))
        taken = {id_ for id_, (sending, n) in under_way.items() if sending.outcome(n) is None}
        return {id_ for id_ in asked if id_ in self._sent} | taken

    def lost(self) -> None:
        """The facts under way are in hand no more; others may try them, once they are refused."""
        self._lost |= set(self._under_way)

    def _found_again(self, facts: Collection[UUID]) -> None:
        """They are in hand again, and a refusal from before is none of this try's."""
        for fact_id in self._lost & set(facts):
            self._lost.discard(fact_id)
            sending, number = self._under_way.get(fact_id, (None, 0))
            if sending is not None and not isinstance(sending.outcome(number), UnderWay | None):
                self._under_way.pop(fact_id)

    def keep(self, session: Session) -> None:
        """Renew the leases of what the mail server thinks about, and write down what it has taken.

        Also of facts that are not in hand any more, since the broker was lost: they come to another
        notifier, who asks for no more than that. Called now and then, from another thread.
        """
        leased = dict(self._leased)
        outcomes = {}
        for fact_id in leased:
            sending, number = self._under_way.get(fact_id, (None, 0))
            if sending is not None:
                outcomes[fact_id] = sending.outcome(number)
        taken = [email for id_, email in leased.items() if outcomes.get(id_, _UNKNOWN) is None]
        _, _, gone = _known(session, taken)
        taken = [email for email in taken if email.order_id not in gone]
        for email in taken:
            if email.fact_id not in self._sent:
                # Told of here for the first time: the batch that began it is over.
                self._tried(email, None)
                self._bounds.sent(email)
            self._remember(email)
        self._write_down(session, taken, outcomes)
        thinking = [id_ for id_, found in outcomes.items() if isinstance(found, UnderWay)]
        leases.take(session, thinking)
        self._let_go(session, leased.keys() - set(thinking))

    def _let_go(self, session: Session, facts: Collection[UUID]) -> None:
        ended = [fact_id for fact_id in facts if fact_id in self._leased]
        if not ended:
            return
        leases.end(session, ended)

        def forget(_: Session) -> None:
            for fact_id in ended:
                self._leased.pop(fact_id, None)
                if fact_id in self._lost:
                    # It is with another notifier, and may never come here again.
                    self._lost.discard(fact_id)
                    self._under_way.pop(fact_id, None)

        # Where it is not written down in the end, the next look must find it again.
        event.listen(session, "after_commit", forget, once=True)

    def __call__(self, session: Session, messages: Sequence[Received[Any]]) -> Failures:
        """Send the email of each fact, and write down what became of it.

        Returns:
            The facts whose email was refused, for now or for good, and those that are held: there
            is no mail server to talk to, or it thinks about them.
        """
        failures: dict[UUID, Exception] = {}
        emails: list[Email] = []
        self._found_again([message.id for message in messages])
        over = overdue(session, messages)
        of = {m.id: account for m in messages if (account := account_of(m)) and m.id not in over}
        chosen = senders.chosen(session, of.values())
        for message in messages:
            if message.id not in of:
                continue
            try:
                email = self._compose(message, chosen.get(of[message.id], OURS))
            except Permanent as error:
                failures[message.id] = error
                continue
            if email is None:
                continue
            emails.append(email)
            if message.happened:
                self._remember(email)
        delivered, leased, gone = _known(session, emails)
        for email in emails:
            if email.order_id in gone or email.fact_id in delivered:
                self._under_way.pop(email.fact_id, None)
        emails = [e for e in emails if e.fact_id not in delivered and e.order_id not in gone]
        elsewhere = {x for x in leased if x not in self._under_way and x not in self._sent}
        emails = [e for e in emails if e.fact_id not in elsewhere]
        outcomes = self._send(session, emails)
        failures |= dict.fromkeys(elsewhere, UnderWay("another notifier waits for the answer"))
        failures |= {
            id_: error
            for id_, error in outcomes.items()
            if error is not None and not isinstance(error, NotSentError)
        }
        self._write_down(session, emails, outcomes)
        thinking = [email for email in emails if email.fact_id in self._under_way]
        leases.take(session, [email.fact_id for email in thinking])
        self._let_go(session, {e.fact_id for e in emails} - {e.fact_id for e in thinking})
        self._leased |= {email.fact_id: email for email in thinking}
        return failures

    def _send(self, session: Session, emails: Sequence[Email]) -> dict[UUID, Outcome]:
        outcomes: dict[UUID, Outcome] = {
            email.fact_id: None for email in emails if email.fact_id in self._sent
        }
        for fact_id in outcomes:
            self._under_way.pop(fact_id, None)
        unsent = []
        # What is out already, or on its way, nobody can take back.
        begun = outcomes.keys() | set(self._under_way)
        refused = records.refusals(session, [e for e in emails if e.fact_id not in begun])
        for email in emails:
            if email.fact_id in outcomes:
                continue
            refusal: NotSentError | None = None
            if email.fact_id not in self._under_way:
                refusal = refused.get(email.fact_id) or self._bounds.refusal(email)
            if refusal is None:
                unsent.append(email)
            else:
                outcomes[email.fact_id] = refusal
                self._tried(email, refusal)
        before = {self._under_way[e.fact_id][0] for e in unsent if e.fact_id in self._under_way}
        sending = self._begin([e for e in unsent if e.fact_id not in self._under_way])
        self._await(session, sending, before)
        for email in unsent:
            sending, number = self._under_way[email.fact_id]
            outcome = outcomes[email.fact_id] = sending.outcome(number)
            self._tried(email, outcome)
            if isinstance(outcome, NotBegunError) or not isinstance(outcome, UnderWay):
                del self._under_way[email.fact_id]
            if outcome is None:
                self._remember(email)
                self._bounds.sent(email)
        return outcomes

    def _compose(self, message: Received[Any], chosen: Sender) -> Email | None:
        return compose(message, chosen)

    def _tried(self, email: Email, outcome: Outcome) -> None:
        if email.is_counted:
            metrics.tried(email.template, outcome)

    def _remember(self, email: Email) -> None:
        self._sent[email.fact_id] = None
        if len(self._sent) > MAX_REMEMBERED:
            self._sent.popitem(last=False)

    def _begin(self, emails: Sequence[Email]) -> Sending | None:
        if not emails:
            return None
        now = datetime.now(UTC)
        sending = self._mailer.send(
            [
                Outgoing(
                    email.recipient, mime.assemble(email, self._sender, now), email.traceparent
                )
                for email in emails
            ]
        )
        for number, email in enumerate(emails):
            self._under_way[email.fact_id] = (sending, number)
        return sending

    def _await(self, session: Session, begun: Sending | None, before: Collection[Sending]) -> None:
        """Wait until what was begun is known, or what is known of it should be written down.

        For what was begun earlier nothing new waits, but at a stop.
        """
        stopping = process_stopping.get()
        awaited = {begun} if begun else set(before)
        patience = WRITE_DOWN_SECONDS if begun else LOOK_SECONDS
        is_ceasing = False
        started = looked = time.monotonic()
        while True:
            if stopping.is_set() and not is_ceasing:
                is_ceasing, started, patience = True, time.monotonic(), WRITE_DOWN_SECONDS
                awaited |= set(before)
                for sending in awaited:
                    sending.cease(STOPS)
            if all(sending.wait(LOOK_SECONDS) for sending in awaited):
                return
            if time.monotonic() - started >= patience:
                # Whom it is for may leave or be erased before the next look at the books.
                for sending in awaited:
                    sending.cease(NotBegunError())
                return
            if time.monotonic() - looked >= IDLE_SECONDS / 3:
                looked = time.monotonic()
                still_here(session)

    def _write_down(
        self,
        session: Session,
        emails: Sequence[Email],
        outcomes: dict[UUID, Outcome],
    ) -> None:
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
        records.refuse(session, refused)
        outbox.add(session, facts)


class _Known(NamedTuple):
    """What the books have of emails.

    Attributes:
        sent: the facts whose email was sent before.
        leased: those with a lease.
        erased: the orders whose customer's data was erased: whatever still tells of them waited.
            A fact that did, or that the journal says again, has the address yet.
    """

    sent: set[UUID]
    leased: set[UUID]
    erased: set[UUID]


def _known(session: Session, emails: Sequence[Email]) -> _Known:
    found = _Known(set(), set(), set())
    if emails:
        values = {
            "facts": arrays.uuids(email.fact_id for email in emails),
            "orders": arrays.uuids({e.order_id for e in emails if e.order_id is not None}),
            "erased": erased.ADDRESS,
        }
        for kind, id_ in session.execute(_KNOWN, values):
            found[kind].add(id_)
    return found


_UNKNOWN = UnderWay("nobody knows")
# By the place in `_Known`.
_KNOWN = text("""
    SELECT 0, fact_id FROM email_deliveries
    WHERE fact_id = ANY(CAST(:facts AS uuid[])) AND state = 'sent'
    UNION ALL
    SELECT 1, fact_id FROM email_leases
    WHERE fact_id = ANY(CAST(:facts AS uuid[])) AND good_until > clock_timestamp()
    UNION ALL
    SELECT 2, id FROM orders
    WHERE id = ANY(CAST(:orders AS uuid[])) AND customer_email = :erased
""")
# The row's own id is that of the fact: a fact has one recipient at a time, which may be another one
# once its dead letter was edited.
_WRITE_DOWN = text("""
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
