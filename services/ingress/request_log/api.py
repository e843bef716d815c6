"""`GET /webhooks/log/`: the request log of an account."""

from collections.abc import Iterator, Mapping, Set
from datetime import datetime
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.orm import Session

from shared.bus.contract.events import Reference
from shared.db.models import (
    Order,
    OrderConflict,
    OrderStatusHistory,
    WaitingUpdate,
    WebhookRequest,
)
from shared.db.request_log import outcomes
from shared.http.listing import (
    Cursor,
    Limit,
    Stamp,
    from_cursor,
    in_utc,
    search_page,
    to_cursor,
)
from shared.http.route import Answer, Call, Route
from shared.ids import normalised_number, order_of_number

Outcome = Literal["accepted", "refused"]
ConflictOf = Literal["order_number", "idempotency_key"]
Numbers = Mapping[UUID, str]  # of orders, by their ids
ID_BYTES = 8
_NO_CHANGE = "no_change"  # a note of `platforms.order_events`


class RequestFilter(msgspec.Struct, kw_only=True):
    """Which requests to return, and where the page begins."""

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
    """One request and its outcome.

    `conflict` is true when another order was accepted before under the same `order_number` or
    `idempotency_key`, as `conflict_of` states.
    `order_id` is that of the recorded order; a shop's order may have it from an earlier version.
    `order_number` is its number, or that of the order that an update waits for, or that a shop's
    delivery with a `note` is about.
    `awaits_order` is set for an update whose order is not known: it is retried for four hours, then
    given up. `note` states why nothing is recorded of a valid delivery of a shop: `no_change`,
    `not_placed`, `no_email_address`, `old_order`, `order_gone`, `privacy_request`,
    `topic_not_taken` or `test`. `fault` states what is wrong with a shop's delivery that was signed
    correctly and refused (`invalid_body`), or the unknown status or topic behind a `note`.
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
    fault: str | None


class RequestPage(msgspec.Struct, kw_only=True):
    """Requests, newest first; `next` is the cursor of the next page, null on the last.

    A page filtered by `code`, `note`, `event_type` or `order_number` searches 100,000 requests, so
    it may have a `next` with fewer than `limit` results, or none.
    """

    results: list[RequestView]
    next: str | None


def index(session: Session, call: Call[None, RequestFilter]) -> Answer:
    """Return a page of the account's requests; they appear about a second after their answer."""
    wanted = call.query
    is_accepted = wanted.outcome == "accepted" if wanted.outcome else None
    page, end = search_page(
        session,
        WebhookRequest,
        [
            _in_range(call.caller, accepted, wanted)
            for accepted in outcomes(is_accepted, wanted.code)
        ],
        ("at", "id"),
        partial(_fits, call.caller, wanted) if _is_filtered(wanted) else None,
        wanted.limit,
    )
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


def _in_range(account_id: UUID, accepted: bool, wanted: RequestFilter) -> Select[WebhookRequest]:
    """Select an outcome's requests of the time range, in the order of the index."""
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
        # The first condition is implied by the second; it lets the planner skip partitions.
        query = query.where(at <= before, tuple_(at, id_) < (before, before_id))
    return query.order_by(at.desc(), id_.desc())


def _is_filtered(wanted: RequestFilter) -> bool:
    given = (wanted.code, wanted.note, wanted.event_type, wanted.order_number)
    return any(each is not None for each in given)


def _fits(
    account_id: UUID, wanted: RequestFilter, request: type[WebhookRequest]
) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions that no index covers."""
    if wanted.code is not None:
        yield request.code == wanted.code
    if wanted.note is not None:
        yield request.note == wanted.note
        if wanted.note == _NO_CHANGE:
            placed = select(OrderStatusHistory.event_id).where(
                OrderStatusHistory.event_id == request.event_id, OrderStatusHistory.applied
            )
            yield ~placed.exists()
    if wanted.event_type is not None:
        yield request.event_type == wanted.event_type
    if wanted.order_number is not None:
        yield _is_of_number(request, account_id, normalised_number(wanted.order_number))


def _is_of_number(
    request: type[WebhookRequest], account_id: UUID, number: str
) -> ColumnElement[bool]:
    """Return the condition that a request is about an order of this number, also in a shop."""
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
    """Return the events in conflict with an earlier order, and whether by its number or key.

    An order with a number is identified by the number, whatever its key.
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
    """Return the updates whose order is still unknown, and whether they were given up."""
    if not event_ids:
        return {}
    recorded = select(OrderStatusHistory.event_id).where(
        OrderStatusHistory.event_id == WaitingUpdate.event_id
    )
    found = select(WaitingUpdate.event_id, WaitingUpdate.given_up_at).where(
        WaitingUpdate.event_id.in_(event_ids), ~recorded.exists()
    )
    return {row.event_id: row.given_up_at is not None for row in session.execute(found)}


def _recorded(session: Session, event_ids: Set[UUID]) -> Mapping[UUID | None, tuple[UUID, bool]]:
    """Return the orders in whose history events are, and whether they were applied.

    They correct the request log: a shop's order may have an id of an earlier version, and a
    delivery that was answered `no_change` may have placed an order that waited for it.
    """
    if not event_ids:
        return {}
    found = select(
        OrderStatusHistory.event_id, OrderStatusHistory.order_id, OrderStatusHistory.applied
    ).where(OrderStatusHistory.event_id.in_(event_ids))
    return {row.event_id: (row.order_id, row.applied) for row in session.execute(found)}


def _numbers(session: Session, account_id: UUID, orders: Set[UUID], events: Set[UUID]) -> Numbers:
    """Return the numbers of orders. They are looked up here, to keep them off the hot path."""
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
        fault=request.fault,
    )


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
