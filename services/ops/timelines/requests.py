"""The webhook requests of an order, and the refused ones of an account."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    func,
    or_,
    select,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from shared.db import arrays
from shared.db.deadline import TookTooLongError, at_most
from shared.db.models import WebhookRequest, WebhookSecret
from shared.db.request_log import ACCOUNT_REFUSALS

AT_MOST = 100
LATELY = timedelta(days=2)
"""The age of the oldest unrecorded order to expect, unless the recorder failed for days."""
LOG_SECONDS = 1.0
"""For scanning these days without an index: there may be millions of rows."""
NOT_WHOLE = (
    "The request log is too long to be looked through in time: what is accepted and not recorded "
    "yet may be missing. It is looked through for one business, if that is named."
)


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook request; see the table `webhook_requests`."""

    at: datetime
    accepted: bool
    code: str
    event_id: UUID | None
    event_type: str | None
    order_id: UUID | None
    account_id: UUID
    idempotency_key: str | None
    address: str


_COLUMNS = {"address": "client_address"}  # columns with another name


def by_events(session: Session, event_ids: Collection[UUID]) -> Sequence[Request]:
    """Return the requests that became these messages, oldest first, with repetitions."""
    return _found(session, WebhookRequest.event_id.in_(event_ids))


def one_of(
    column: InstrumentedAttribute[UUID] | InstrumentedAttribute[UUID | None],
    ids: Collection[UUID],
) -> ColumnElement[bool]:
    """Return the condition that a column has one of many ids, passed as one array."""
    return column == any_(cast(bindparam(None, arrays.uuids(ids), Text), ARRAY(Uuid)))


def not_recorded(
    session: Session, order_id: UUID, account_id: UUID | None
) -> tuple[Sequence[Request], bool]:
    """Return the requests of an unrecorded order, oldest first, and whether these are all.

    Args:
        session: may read the request log.
        order_id: its id.
        account_id: limits the search to an account; None for all.
    """
    # An order without a key or a number has the id of its message, which is indexed.
    is_message = WebhookRequest.event_id == order_id
    return _within_time(session, account_id, WebhookRequest.order_id == order_id, is_message)


def accepted_lately(
    session: Session, order_ids: Collection[UUID], key: str | None, account_id: UUID | None
) -> tuple[Sequence[Request], bool]:
    """Return the requests accepted within `LATELY`, oldest first, and whether these are all.

    If there are none, older ones of the account are searched.

    Args:
        session: may read the request log.
        order_ids: of the orders.
        key: finds requests with this idempotency key too.
        account_id: limits the search to an account; None for all.
    """
    accepted = WebhookRequest.accepted.is_(True)
    is_it = one_of(WebhookRequest.order_id, order_ids)
    if key is not None:
        is_it = or_(is_it, WebhookRequest.idempotency_key == key)
    is_message = and_(one_of(WebhookRequest.event_id, order_ids), accepted)
    return _within_time(session, account_id, and_(is_it, accepted), is_message)


def refusals(session: Session, account_id: UUID, *, since: datetime) -> tuple[dict[str, int], bool]:
    """Count the refused requests of an account by error code; and whether the log has all.

    Args:
        session: may read the request log.
        account_id: the account's; its tests are left out.
        since: the start of the period.
    """
    tests = select(WebhookSecret.id).where(
        WebhookSecret.account_id == account_id, WebhookSecret.is_test
    )
    is_live = or_(WebhookRequest.secret_id.is_(None), WebhookRequest.secret_id.not_in(tests))
    counted = func.count().filter(WebhookRequest.at > since, is_live)
    rows = session.execute(
        select(WebhookRequest.code, counted, func.count())
        .where(
            WebhookRequest.account_id == account_id,
            WebhookRequest.accepted.is_(False),
            # A flood that used up the quota of the log may have begun so much earlier.
            WebhookRequest.at > since - timedelta(seconds=ACCOUNT_REFUSALS),
        )
        .group_by(WebhookRequest.code)
        .order_by(counted.desc())
    ).all()
    are_all = sum(row[2] for row in rows) < ACCOUNT_REFUSALS
    return {row[0]: row[1] for row in rows if row[1]}, are_all


def _within_time(
    session: Session,
    account_id: UUID | None,
    wanted: ColumnElement[bool],
    by_index: ColumnElement[bool],
) -> tuple[Sequence[Request], bool]:
    """Return the wanted requests, and whether these are all; on a timeout the indexed ones.

    There is no index by order: it would slow down every request for a few searches a day. So the
    last days are scanned and, for an account, all days.
    """
    theirs = [] if account_id is None else [WebhookRequest.account_id == account_id]
    found: Sequence[Request] = ()
    for when in ([_lately()], *([[]] if theirs else [])):
        try:
            with at_most(session, LOG_SECONDS):
                found = _found(session, *theirs, *when, wanted)
        except TookTooLongError:
            return _found(session, *theirs, *when, by_index), False
        if found:
            break
    return found, True


def _lately() -> ColumnElement[bool]:
    return WebhookRequest.at > datetime.now(UTC) - LATELY


def _found(session: Session, *conditions: ColumnElement[bool]) -> Sequence[Request]:
    columns = [getattr(WebhookRequest, _COLUMNS.get(name, name)) for name in Request.__slots__]
    rows = session.execute(
        select(*columns)
        .where(*conditions)
        .order_by(WebhookRequest.at, WebhookRequest.id)
        .limit(AT_MOST)
    )
    return [Request(*row) for row in rows.all()]
