"""What became of the emails about an order: sent, refused, not due, or due and not sent yet."""

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
    """What a customer may be told.

    Attributes:
        id: the fact's.
        at: when what it tells of happened.
        about: in words.
        is_told: whether the recorder told it, as far as the history shows.
    """

    id: UUID
    at: datetime
    about: str
    is_told: bool


def steps(
    session: Session,
    order: Order,
    history: Sequence[OrderStatusHistory],
    waiting: Sequence[Waiting],
    gone: Collection[str] = (),
) -> tuple[list[Step], bool]:
    """A step for each email, and for each fact that led to none, or to none yet.

    Of emails the latest are among them; the second says whether those are all.

    Args:
        session: may read deliveries, the notifier's inbox and heartbeats.
        order: the order.
        history: what was said of it, oldest first.
        waiting: what is known to wait for it somewhere.
        gone: the ids of messages that were thrown away.
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
    # Also by an email that is not among the latest.
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
    # Of what is older the inbox may have forgotten that it is done.
    remembered = now - timedelta(days=KEEP_DAYS - 1)
    due = [
        fact
        for fact in facts.values()
        if fact.is_told
        and fact.id not in handled
        and fact.at > remembered
        and str(fact.id) not in gone
    ]
    told = [
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
    return told, is_all


def _facts(order: Order, history: Sequence[OrderStatusHistory]) -> Iterator[_Fact]:
    def id_of(cause: UUID, fact: type[Event]) -> UUID:
        return follow_up_id(cause, fact.TYPE)

    if order.is_test:
        return  # cleared and sent again it is told again, by ids that nothing tells beforehand
    yield _Fact(id_of(order.id, OrderRecorded), order.recorded_at, "the order itself", True)
    before = None
    parcel: dict[str, str] = {}
    for said in history:
        is_new = before is not None and said.applied
        known, parcel = parcel, parcel | (said.tracking or {})
        tells_more = parcel != known or bool(said.note.strip())
        is_news = is_new and (said.tracking_status != before or tells_more)
        is_end = said.tracking_status == TrackingStatus.CANCELLED
        for type_, is_its_own in (
            (OrderStatusRecorded, not is_end),
            (OrderCancellationRecorded, is_end),
        ):
            yield _Fact(
                id_of(said.event_id, type_),
                said.at,
                said.tracking_status,
                is_news and is_its_own,
            )
        before = said.tracking_status if said.applied else before


def _why(
    session: Session, due: Sequence[_Fact], waiting: Sequence[Waiting], now: datetime
) -> Iterator[tuple[_Fact, str]]:
    """Each fact, with why it has not led to an email, as far as that is known."""
    if not due:
        return
    places = {message.message_id: message.place for message in waiting}
    held = heartbeats.lacking(heartbeats.read(session, now), "mail", now)
    for fact in due:
        if (place := places.get(str(fact.id))) is not None:
            yield fact, f": it waits in {place}"
        elif held is not None:
            yield fact, f": {mail_is_away(held)}"
        else:
            yield fact, ""


def mail_is_away(held: heartbeats.QueueBeat) -> str:
    """A sentence without its stop, for a batch that is kept since no mail server takes it."""
    return f"no mail server takes our mail{since(held.since)}"
