"""The batch handler: facts in, emails out, each fact mailed to each recipient once.

Sending an email is in no transaction, so three things prevent a second one: the inbox, the unique
delivery row, and this process's memory of what it sent in a transaction that did not commit.
Outcomes are recorded even while the rest of a batch is held; when the process stops before the
database is back, the facts return to the queue with a header that says so. An email whose reply is
pending has a lease, which other notifiers see. So only a crash between the mail server's 250 and
the commit can send one twice, under the same Message-ID.
"""

import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.orm import Session

from services.notifier import deliveries, leases, metrics, senders
from services.notifier.bounds import Bounds
from services.notifier.composing import Email, account_of, compose, overdue
from services.notifier.mail import mime
from services.notifier.mail.outgoing import (
    NotBegunError,
    NotSentError,
    Outcome,
    Outgoing,
    Sending,
    Sends,
)
from services.notifier.senders import OURS, Sender
from services.notifier.suppression import records
from shared.bus.consume.batch import Failures, process_stopping
from shared.bus.contract.errors import Hold, Permanent, UnderWay
from shared.bus.contract.message import Received
from shared.db.session import IDLE_SECONDS, keep_transaction_alive

MAX_REMEMBERED = 10_000
RECORD_SECONDS = 5.0
"""After which known outcomes are recorded, whatever is still pending; also after a stop."""
STOPS = Hold("the process stops")
POLL_SECONDS = 0.1  # how long a stop may go unnoticed


class Notifier:
    """Handles the batches of one subscription.

    Args:
        mailer: sends the emails.
        sender: the From header.
        bounds: how many emails one person may get.
    """

    def __init__(self, mailer: Sends, sender: str, bounds: Bounds) -> None:
        self._mailer = mailer
        self._sender = sender
        self._bounds = bounds
        self._sent: OrderedDict[UUID, None] = OrderedDict()
        # `keep` runs in another thread and may remove entries: look up or copy, never iterate.
        self._under_way: dict[UUID, tuple[Sending, int]] = {}
        self._leased: dict[UUID, Email] = {}
        self._lost: set[UUID] = set()  # facts under way whose delivery was lost with the broker
        # Facts in the batch whose lease, another notifier's, has run out: since when we see that.
        self._run_out: dict[UUID, float] = {}
        self._wait_until: float | None = None  # the end of a stop's wait, on the monotonic clock

    def happened(self, ids: Collection[UUID]) -> Collection[UUID]:
        """Return the facts among `ids` whose email the mail server has accepted.

        Called when the process stops: waits once, at most `RECORD_SECONDS`, for pending replies.
        """
        asked = set(ids)
        under_way = {id_: found for id_ in asked if (found := self._under_way.get(id_))}
        if self._wait_until is None:
            self._wait_until = time.monotonic() + RECORD_SECONDS
        sendings = {sending for sending, _ in under_way.values()}
        for sending in sendings:
            sending.cease(STOPS)
        for sending in sendings:
            sending.wait(max(0.0, self._wait_until - time.monotonic()))
        accepted = {id_ for id_, (sending, n) in under_way.items() if sending.outcome(n) is None}
        return {id_ for id_ in asked if id_ in self._sent} | accepted

    def lost(self) -> None:
        """Mark the facts under way as lost: another notifier may send them if they are refused."""
        self._lost |= set(self._under_way)
        self._run_out.clear()

    def _found_again(self, facts: Collection[UUID]) -> None:
        """Unmark lost facts that were delivered again, and forget their earlier refusals."""
        for fact_id in self._lost & set(facts):
            self._lost.discard(fact_id)
            sending, number = self._under_way.get(fact_id, (None, 0))
            if sending is not None and not isinstance(sending.outcome(number), UnderWay | None):
                self._under_way.pop(fact_id)

    def keep(self, session: Session) -> None:
        """Renew the leases of emails whose reply is pending, and record accepted ones.

        Also of facts whose delivery was lost with the broker: they come to another notifier, which
        only looks at leases and rows. Called periodically from another thread.
        """
        leased = dict(self._leased)
        outcomes = {}
        for fact_id in leased:
            sending, number = self._under_way.get(fact_id, (None, 0))
            if sending is not None:
                outcomes[fact_id] = sending.outcome(number)
        accepted = [email for id_, email in leased.items() if outcomes.get(id_, _UNKNOWN) is None]
        gone = deliveries.known(session, accepted).erased
        accepted = [email for email in accepted if email.order_id not in gone]
        for email in accepted:
            if email.fact_id not in self._sent:
                # Counted here: the batch that began it is over.
                self._tried(email, None)
                self._bounds.sent(email)
            self._remember(email)
        deliveries.record(session, accepted, outcomes, self._sender)
        pending = [id_ for id_, found in outcomes.items() if isinstance(found, UnderWay)]
        leases.take(session, pending)
        self._release(session, leased.keys() - set(pending))

    def _release(self, session: Session, facts: Collection[UUID]) -> None:
        """End leases, and forget them once that is committed."""
        ended = [fact_id for fact_id in facts if fact_id in self._leased]
        if not ended:
            return
        leases.end(session, ended)

        def forget(_: Session) -> None:
            for fact_id in ended:
                self._leased.pop(fact_id, None)
                if fact_id in self._lost:
                    # Another notifier has it, so it may never come here again.
                    self._lost.discard(fact_id)
                    self._under_way.pop(fact_id, None)

        # Without a commit, the next call must find them again.
        event.listen(session, "after_commit", forget, once=True)

    def __call__(self, session: Session, messages: Sequence[Received[Any]]) -> Failures:
        """Send the email of each fact, and record its outcome.

        Returns:
            By message id, the errors of emails that were refused, temporarily or permanently, and
            of those that are held, since no mail server answers or the reply is pending.
        """
        failures: dict[UUID, Exception] = {}
        emails: list[Email] = []
        self._found_again([message.id for message in messages])
        over = overdue(session, messages)
        accounts = {m.id: id_ for m in messages if (id_ := account_of(m)) and m.id not in over}
        chosen = senders.chosen(session, accounts.values())
        for message in messages:
            if message.id not in accounts:
                continue
            try:
                email = self._compose(message, chosen.get(accounts[message.id], OURS))
            except Permanent as error:
                failures[message.id] = error
                continue
            if email is None:
                continue
            emails.append(email)
            if message.happened:
                self._remember(email)
        delivered, leased, gone, run_out = deliveries.known(session, emails)
        for email in emails:
            if email.order_id in gone or email.fact_id in delivered:
                self._under_way.pop(email.fact_id, None)
        emails = [e for e in emails if e.fact_id not in delivered and e.order_id not in gone]
        leased |= self._not_over(run_out)
        elsewhere = {x for x in leased if x not in self._under_way and x not in self._sent}
        emails = [e for e in emails if e.fact_id not in elsewhere]
        outcomes = self._send(session, emails)
        failures |= dict.fromkeys(elsewhere, UnderWay("another notifier waits for the answer"))
        failures |= {
            id_: error
            for id_, error in outcomes.items()
            if error is not None and not isinstance(error, NotSentError)
        }
        deliveries.record(session, emails, outcomes, self._sender)
        pending = [email for email in emails if email.fact_id in self._under_way]
        leases.take(session, [email.fact_id for email in pending])
        self._release(session, {e.fact_id for e in emails} - {e.fact_id for e in pending})
        self._leased |= {email.fact_id: email for email in pending}
        return failures

    def _not_over(self, run_out: Collection[UUID]) -> set[UUID]:
        """Return the facts whose lease has run out so recently that its holder may yet renew it."""
        now = time.monotonic()
        self._run_out = {fact_id: self._run_out.get(fact_id, now) for fact_id in run_out}
        return {x for x, since in self._run_out.items() if now - since < leases.SECONDS}

    def _send(self, session: Session, emails: Sequence[Email]) -> dict[UUID, Outcome]:
        outcomes: dict[UUID, Outcome] = {
            email.fact_id: None for email in emails if email.fact_id in self._sent
        }
        for fact_id in outcomes:
            self._under_way.pop(fact_id, None)
        unsent = []
        # An email that was sent or begun cannot be refused any longer.
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
        """Wait until all outcomes of `begun` are known, or the known ones are due to be recorded.

        Sendings from before delay nothing new, except at a stop.
        """
        stopping = process_stopping.get()
        awaited = {begun} if begun else set(before)
        timeout = RECORD_SECONDS if begun else POLL_SECONDS
        is_ceasing = False
        started = pinged = time.monotonic()
        while True:
            if stopping.is_set() and not is_ceasing:
                is_ceasing, started, timeout = True, time.monotonic(), RECORD_SECONDS
                awaited |= set(before)
                for sending in awaited:
                    sending.cease(STOPS)
            if all(sending.wait(POLL_SECONDS) for sending in awaited):
                return
            if time.monotonic() - started >= timeout:
                # A recipient may unsubscribe or be erased before the next look at the database.
                for sending in awaited:
                    sending.cease(NotBegunError())
                return
            if time.monotonic() - pinged >= IDLE_SECONDS / 3:
                pinged = time.monotonic()
                keep_transaction_alive(session)


_UNKNOWN = UnderWay("the outcome is unknown")
