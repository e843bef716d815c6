"""The HTTP side of the request log: an account sees what became of each of its requests."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from shared.bus.contract.events import Reference
from shared.db.models import (
    Order,
    OrderConflict,
    OrderStatusHistory,
    WaitingUpdate,
    WebhookRequest,
)
from shared.db.request_log import outcomes
from shared.http.listing import Cursor, Limit, Stamp, from_cursor, in_utc, to_cursor
from shared.http.route import Answer, Call, Route
from shared.ids import normalised_number, order_of_number

Outcome = Literal["accepted", "refused"]
ConflictOf = Literal["order_number", "idempotency_key"]
Numbers = Mapping[UUID, str]  # of orders, by their ids
Place = tuple[datetime, int]  # of a request: its time and its id
ID_BYTES = 8
MOST_LOOKED_AT = 100_000
"""By what is asked of a page beside time and outcome there is no index, which each request would
pay for: a page looks through so many of each outcome, a fraction of a second of work."""
_NO_CHANGE = "no_change"  # one of the notes of `shops`


class RequestFilter(msgspec.Struct, kw_only=True):
    """Which requests, and where the page begins."""

    outcome: Outcome | None = None
    code: Annotated[str, msgspec.Meta(pattern="^[a-z_]{1,64}$", description="a code")] | None = None
    note: Annotated[str, msgspec.Meta(pattern="^[a-z_]{1,64}$", description="a note")] | None = None
    event_type: (
        Annotated[str, msgspec.Meta(pattern="^[a-z_.]{1,64}$", description="a type of event")]
        | None
    ) = None
    order_number: Reference | None = None
    received_from: Stamp | None = None
    received_to: Stamp | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class RequestView(msgspec.Struct, kw_only=True):
    """One request and what became of it.

    `conflict`, when another order had come before under its `order_number` or its
    `idempotency_key`, which `conflict_of` names.
    `order_id` is that of the recorded order, which a shop's may have from an earlier version.
    `order_number` is its number, or that of the order that an update waits for, or that a shop's
    delivery with a `note` was about.
    `awaits_order`, of an update whose order is not known: it is tried again for four hours, then
    given up. `note` says why nothing is recorded of a shop's delivery that was in order:
    `no_change`, `not_placed`, `no_email_address`, `old_order`, `topic_not_taken` or `test`.
    """

    received_at: datetime
    outcome: Outcome
    code: str
    event_type: str | None
    event_id: UUID | None
    order_number: str | None
    order_id: UUID | None
    idempotency_key: str | None
    secret_id: UUID | None
    scheme: str
    body_bytes: int | None
    body_sha256: str | None
    client_address: str
    latency_ms: float
    conflict: bool
    conflict_of: ConflictOf | None
    awaits_order: Literal["waiting", "given_up"] | None
    note: str | None


class RequestPage(msgspec.Struct, kw_only=True):
    """Requests, newest first; `next` is the cursor of the next page, null on the last.

    A page of what has a `code`, `note`, `event_type` or `order_number` looks through 100,000
    requests: there may be a next one where it has fewer than `limit`, or none.
    """

    results: list[RequestView]
    next: str | None


def index(session: Session, call: Call[None, RequestFilter]) -> Answer:
    """A page of the account's requests; the newest appear about a second after their answer."""
    wanted = call.query
    is_accepted = wanted.outcome == "accepted" if wanted.outcome else None
    looked_at = [
        _looked_at(call.caller, accepted, wanted) for accepted in outcomes(is_accepted, wanted.code)
    ]
    fitting = [session.scalars(_fitting(each, call.caller, wanted)).all() for each in looked_at]
    found = sorted(chain(*fitting), key=_place, reverse=True)
    end = None
    if _is_filtered(wanted):
        ends = map(partial(_end, session, wanted.limit), looked_at, fitting)
        end = max((place for place in ends if place is not None), default=None)
    if end is not None:
        found = [request for request in found if _place(request) >= end]
    page = found[: wanted.limit]
    if len(found) > wanted.limit:
        end = _place(page[-1])
    events = {request.event_id for request in page if request.event_id}
    conflicts, awaited = _conflicts(session, events), _awaited(session, events)
    recorded = _recorded(session, events)
    orders = [recorded.get(request.event_id, (request.order_id,))[0] for request in page]
    placed = {event_id for event_id, (_, has_counted) in recorded.items() if has_counted}
    numbers = _numbers(session, call.caller, {id_ for id_ in orders if id_}, events)
    return Answer(
        200,
        RequestPage(
            results=[
                _view(request, order_id, conflicts, awaited, numbers, placed)
                for request, order_id in zip(page, orders, strict=True)
            ],
            next=_cursor(*end) if end is not None else None,
        ),
    )


def _looked_at(account_id: UUID, accepted: bool, wanted: RequestFilter) -> Select[WebhookRequest]:
    """The requests that a page is made of, as the index has them."""
    at, id_ = WebhookRequest.at, WebhookRequest.id
    query = select(WebhookRequest).where(
        WebhookRequest.account_id == account_id, WebhookRequest.accepted.is_(accepted)
    )
    if wanted.received_from is not None:
        query = query.where(at >= in_utc(wanted.received_from))
    if wanted.received_to is not None:
        query = query.where(at < in_utc(wanted.received_to))
    if wanted.cursor is not None:
        before, key = from_cursor(wanted.cursor, ID_BYTES)
        before_id = int.from_bytes(key, signed=True)
        # The first condition says nothing new, but by it partitions are left out.
        query = query.where(at <= before, tuple_(at, id_) < (before, before_id))
    return query.order_by(at.desc(), id_.desc())


def _is_filtered(wanted: RequestFilter) -> bool:
    given = (wanted.code, wanted.note, wanted.event_type, wanted.order_number)
    return any(each is not None for each in given)


def _fitting(
    looked_at: Select[WebhookRequest], account_id: UUID, wanted: RequestFilter
) -> Select[WebhookRequest]:
    """Of the first `MOST_LOOKED_AT` of these, those that fit, one more than a page has."""
    if not _is_filtered(wanted):
        return looked_at.limit(wanted.limit + 1)
    request = aliased(WebhookRequest, looked_at.limit(MOST_LOOKED_AT).subquery())
    query = select(request)
    if wanted.code is not None:
        query = query.where(request.code == wanted.code)
    if wanted.note is not None:
        query = query.where(request.note == wanted.note)
        if wanted.note == _NO_CHANGE:
            placed = select(OrderStatusHistory.event_id).where(
                OrderStatusHistory.event_id == request.event_id, OrderStatusHistory.applied
            )
            query = query.where(~placed.exists())
    if wanted.event_type is not None:
        query = query.where(request.event_type == wanted.event_type)
    if wanted.order_number is not None:
        number = normalised_number(wanted.order_number)
        query = query.where(_is_of_number(request, account_id, number))
    return query.order_by(request.at.desc(), request.id.desc()).limit(wanted.limit + 1)


def _end(
    session: Session,
    limit: int,
    looked_at: Select[WebhookRequest],
    fitting: Sequence[WebhookRequest],
) -> Place | None:
    """The last request up to which all of these were looked at; None where there is no more."""
    if len(fitting) > limit:  # the page is full before: what lies behind need not be passed over
        return _place(fitting[-1])
    end = looked_at.with_only_columns(WebhookRequest.at, WebhookRequest.id)
    row = session.execute(end.offset(MOST_LOOKED_AT - 1).limit(1)).one_or_none()
    return (row.at, row.id) if row else None


def _is_of_number(
    request: type[WebhookRequest], account_id: UUID, number: str
) -> ColumnElement[bool]:
    """Whether a request is about an order of this number: a sender's own, or one of its shops'."""
    derived = [order_of_number(account_id, number, is_test=is_test) for is_test in (False, True)]
    recorded = select(Order.id).where(
        Order.account_id == account_id, Order.has_number_in_shop(number)
    )
    return or_(
        request.order_number == number,
        request.order_id.in_(derived),
        request.order_id.in_(recorded),
    )


def _conflicts(session: Session, event_ids: Set[UUID]) -> Mapping[UUID, ConflictOf]:
    """Those whose number or idempotency key had come before with another body, and which of both.

    An order that has a number is known by it, whatever its key; all that are one by it have it.
    """
    if not event_ids:
        return {}
    number = func.coalesce(OrderConflict.event["order_number"].astext, Order.order_number)
    found = (
        select(OrderConflict.event_id, number.label("number"))
        .outerjoin(Order, Order.id == OrderConflict.order_id)
        .where(OrderConflict.event_id.in_(event_ids))
    )
    return {
        row.event_id: "order_number" if row.number else "idempotency_key"
        for row in session.execute(found)
    }


def _awaited(session: Session, event_ids: Set[UUID]) -> Mapping[UUID, bool]:
    """Updates whose order is not known, and whether they were given up; not those it came for."""
    if not event_ids:
        return {}
    came = select(OrderStatusHistory.event_id).where(
        OrderStatusHistory.event_id == WaitingUpdate.event_id
    )
    found = select(WaitingUpdate.event_id, WaitingUpdate.given_up_at).where(
        WaitingUpdate.event_id.in_(event_ids), ~came.exists()
    )
    return {row.event_id: row.given_up_at is not None for row in session.execute(found)}


def _recorded(session: Session, event_ids: Set[UUID]) -> Mapping[UUID | None, tuple[UUID, bool]]:
    """The orders that these are recorded of, and whether they counted.

    One of a shop may have an id of an earlier version, and one that changed nothing may have placed
    an order that waited for it: whoever answered did not know.
    """
    if not event_ids:
        return {}
    found = select(
        OrderStatusHistory.event_id, OrderStatusHistory.order_id, OrderStatusHistory.applied
    ).where(OrderStatusHistory.event_id.in_(event_ids))
    return {row.event_id: (row.order_id, row.applied) for row in session.execute(found)}


def _numbers(session: Session, account_id: UUID, orders: Set[UUID], events: Set[UUID]) -> Numbers:
    """The orders' own numbers: looked up here, so that no request pays for being shown."""
    waiting = select(WaitingUpdate.order_id, WaitingUpdate.order_number).where(
        WaitingUpdate.event_id.in_(events), WaitingUpdate.order_number.is_not(None)
    )
    recorded = select(Order.id, Order.order_number).where(
        Order.id.in_(orders), Order.account_id == account_id, Order.order_number.is_not(None)
    )
    if not orders:
        return {}
    rows = [*session.execute(waiting), *session.execute(recorded)]
    return {order_id: number or "" for order_id, number in rows}


def _view(
    request: WebhookRequest,
    order_id: UUID | None,
    conflicts: Mapping[UUID, ConflictOf],
    awaited: Mapping[UUID, bool],
    numbers: Numbers,
    placed: Set[UUID | None],
) -> RequestView:
    is_given_up = awaited.get(request.event_id) if request.event_id else None
    conflict_of = conflicts.get(request.event_id) if request.event_id else None
    return RequestView(
        received_at=request.at,
        outcome="accepted" if request.accepted else "refused",
        code=request.code,
        event_type=request.event_type,
        event_id=request.event_id,
        order_number=(numbers.get(order_id) if order_id else None) or request.order_number,
        order_id=order_id,
        idempotency_key=request.idempotency_key,
        secret_id=request.secret_id,
        scheme=request.scheme,
        body_bytes=request.body_bytes,
        body_sha256=request.body_sha256.hex() if request.body_sha256 else None,
        client_address=request.client_address,
        latency_ms=request.latency_us / 1000,
        conflict=conflict_of is not None,
        conflict_of=conflict_of,
        awaits_order=None if is_given_up is None else "given_up" if is_given_up else "waiting",
        note=None if request.note == _NO_CHANGE and request.event_id in placed else request.note,
    )


def _place(request: WebhookRequest) -> Place:
    return request.at, request.id


def _cursor(at: datetime, id_: int) -> str:
    return to_cursor(at, id_.to_bytes(ID_BYTES, signed=True))


ROUTES = (
    Route(
        method="GET",
        path="/webhooks/log/",
        handler=index,
        summary="What became of your webhook requests, as far back as the log goes, newest first",
        query=RequestFilter,
        answers={200: RequestPage},
        bearer=True,
        tag="Webhooks",
    ),
)
