"""The steps of an order's emails: sent, refused, not due, or due and not sent yet."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ops.monitoring import heartbeats
from services.ops.timelines.pending import Waiting
from services.ops.timelines.steps import Step
from services.ops.times import since
from shared.bus.consume.inbox import KEEP_DAYS
from shared.bus.contract.events import (
    Event,
    OrderCancellationRecorded,
    OrderRecorded,
    OrderStatusRecorded,
    TrackingStatus,
)
from shared.db.models import EmailDelivery, InboxEntry, Order, OrderStatusHistory
from shared.http.listing import latest
from shared.ids import follow_up_id

NOTIFIER = "services.notifier"


@dataclass(frozen=True, slots=True)
class _Fact:
    """A fact that a customer may get an email about.

    Attributes:
        id: the fact's.
        at: the time of the event.
        about: its name.
        is_published: whether the recorder published it, by the history.
    """

    id: UUID
    at: datetime
    about: str
    is_published: bool


def steps(
    session: Session,
    order: Order,
    history: Sequence[OrderStatusHistory],
    waiting: Sequence[Waiting],
    gone: Collection[str] = (),
) -> tuple[list[Step], bool]:
    """Return a step for each of the latest emails, and for each fact without an email.

    The second value is whether these are all emails.

    Args:
        session: may read deliveries, the notifier's inbox and heartbeats.
        order: the order.
        history: its updates, oldest first.
        waiting: its known waiting messages.
        gone: the ids of discarded messages.
    """
    of_order = EmailDelivery.subject_id == str(order.id)
    emails, is_all = latest(
        session, select(EmailDelivery).where(of_order), EmailDelivery.at, EmailDelivery.id
    )
    found = [
        Step(
            email.at,
            "email",
            f"{email.template} to {email.recipient}: {email.state}"
            + (f" ({email.response})" if email.response else ""),
            NOTIFIER,
            email.fact_id,
            email.state == "sent",
        )
        for email in emails
    ]
    facts = {fact.id: fact for fact in _facts(order, history)}
    # The email of a fact need not be among the latest.
    by_fact = select(EmailDelivery.fact_id).where(of_order, EmailDelivery.fact_id.in_(facts))
    for mailed in session.scalars(by_fact).all():
        facts.pop(mailed, None)
    handled = set(
        session.scalars(
            select(InboxEntry.message_id).where(
                InboxEntry.consumer == NOTIFIER, InboxEntry.message_id.in_(facts)
            )
        )
    )
    now = datetime.now(UTC)
    # The inbox may have deleted older handled messages.
    remembered = now - timedelta(days=KEEP_DAYS - 1)
    due = [
        fact
        for fact in facts.values()
        if fact.is_published
        and fact.id not in handled
        and fact.at > remembered
        and str(fact.id) not in gone
    ]
    all_steps = [
        *found,
        *(
            Step(facts[id_].at, "told", f"{facts[id_].about}: no email was due", NOTIFIER, id_)
            for id_ in handled
        ),
        *(
            Step(fact.at, "due", f"{fact.about}: email due, not sent yet{why}", NOTIFIER, fact.id)
            for fact, why in _why(session, due, waiting, now)
        ),
    ]
    return all_steps, is_all


def _facts(order: Order, history: Sequence[OrderStatusHistory]) -> Iterator[_Fact]:
    def id_of(cause: UUID, fact: type[Event]) -> UUID:
        return follow_up_id(cause, fact.TYPE)

    if order.is_test:
        return  # a cleared and resent test order gets facts with unpredictable ids
    yield _Fact(id_of(order.id, OrderRecorded), order.recorded_at, "the order itself", True)
    before = None
    parcel: dict[str, str] = {}
    for update in history:
        is_new = before is not None and update.applied
        known, parcel = parcel, parcel | (update.tracking or {})
        says_more = parcel != known or bool(update.note.strip())
        is_relevant = is_new and (update.tracking_status != before or says_more)
        is_end = update.tracking_status == TrackingStatus.CANCELLED
        for type_, is_its_own in (
            (OrderStatusRecorded, not is_end),
            (OrderCancellationRecorded, is_end),
        ):
            yield _Fact(
                id_of(update.event_id, type_),
                update.at,
                update.tracking_status,
                is_relevant and is_its_own,
            )
        before = update.tracking_status if update.applied else before


def _why(
    session: Session, due: Sequence[_Fact], waiting: Sequence[Waiting], now: datetime
) -> Iterator[tuple[_Fact, str]]:
    """Yield each fact with the reason, if known, why its email is not sent."""
    if not due:
        return
    places = {message.message_id: message.place for message in waiting}
    report = heartbeats.lacking(heartbeats.read(session, now), "mail", now)
    for fact in due:
        if (place := places.get(str(fact.id))) is not None:
            yield fact, f": it waits in {place}"
        elif report is not None:
            yield fact, f": {mail_is_away(report)}"
        else:
            yield fact, ""


def mail_is_away(report: heartbeats.QueueBeat) -> str:
    """Return a clause for a batch that waits for a mail server."""
    return f"no mail server takes our mail{since(report.since)}"
