"""A shop's awaited orders: it has sent them, but they are not placed or have no email address yet.

Only their ids are stored. A later state of one that is placed and has an address creates the order,
as it does for a new order; for any other unknown order it is an update, which is retried.

A shop may cancel an unpaid order and accept the payment afterwards. So a cancellation counts only
if it is later than the earliest message that the order was placed, in any order of arrival: one of
an awaited order is stored beside it, and one that did not count is reconsidered when an earlier
message arrives.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from shared.bus.consume.retry import MAX_ATTEMPTS
from shared.bus.contract.events import (
    OrderCancelled,
    OrderCreated,
    OrderNotPlaced,
    OrderPlaced,
    OrderUnaddressed,
    TrackingStatus,
    in_test,
)
from shared.bus.contract.message import Received
from shared.db import arrays
from shared.ids import is_of_shop
from shared.languages.shops import our_word

MOST_CANCELLATIONS = 20
"""Cancellations kept of an order: the latest. The earliest after it was placed counts."""
MOST_EARLIER = 100
"""History entries read of an order, from either end of the time before its acceptance."""
REFUNDED = our_word("refunded")
CANCELLED, PENDING = TrackingStatus.CANCELLED.value, TrackingStatus.PENDING.value
Placed = Received[OrderPlaced]
Cancelled = Received[OrderCancelled]
Change = Placed | Received[OrderUnaddressed] | Cancelled


class Sorted(NamedTuple):
    """A shop's messages, by what is to be done with them.

    Attributes:
        created: they create an order.
        updates: they may update an order, or show that it was placed earlier.
        done: they contain nothing new about an existing order.
        early: they contain nothing new about an order that does not exist; the message that makes
            it awaited or placed may come later.
        unaddressed: about awaited orders that have no email address yet.
        noted: cancellations of awaited orders.
    """

    created: list[Placed]
    updates: list[Change]
    done: list[Change]
    early: list[Change]
    unaddressed: list[Change]
    noted: list[Cancelled]


def remember(
    session: Session, messages: Sequence[Received[OrderNotPlaced | OrderUnaddressed]]
) -> None:
    """Record orders as awaited."""
    if messages:
        session.execute(
            _REMEMBER,
            {
                "order_id": arrays.uuids(m.data.order_id for m in messages),
                "account_id": arrays.uuids(m.data.account_id for m in messages),
            },
        )


def sort(
    session: Session,
    messages: Iterable[Change],
    creations: Sequence[Received[OrderCreated]],
) -> Sorted:
    """Sort a shop's messages; orders that they create are no longer awaited.

    Args:
        session: the transaction.
        messages: the messages, in the order of arrival.
        creations: the batch's creations, whose orders may be awaited.
    """
    changes: list[Received[Any]] = sorted(messages, key=lambda m: m.time)
    created = {m.data.order_id: m for m in reversed(creations)}
    of_shops = {id_ for id_, m in created.items() if m.data.metadata and "shop" in m.data.metadata}
    result = Sorted([], [], [], [], [], [])
    if not changes and not of_shops:
        return result
    ids = {"ids": arrays.uuids(of_shops.union(m.data.order_id for m in changes))}
    # Locked: of two recorders with the same order, the second continues when it is recorded.
    awaited = {row.order_id: row for row in session.execute(_HOLD, ids)}
    placed = of_shops.union(m.data.order_id for m in changes if isinstance(m.data, OrderPlaced))
    placed &= awaited.keys()
    if placed:
        session.execute(_FORGET, {"ids": arrays.uuids(placed)})
    since = {row.id: row.accepted_at for row in session.execute(_RECORDED, ids)}
    known = since.keys() | created.keys()
    new = {m.data.order_id for m in changes if isinstance(m.data, OrderPlaced) and m.data.is_new}
    to_come = (placed | new) - known
    since = {id_: m.time for id_, m in created.items()} | since
    for id_ in sorted(placed & created.keys()):
        result.updates.extend(_cancellations(awaited[id_], created[id_]))
    for message in changes:
        id_, data = message.data.order_id, message.data
        if isinstance(data, OrderCancelled):
            is_early = id_ in awaited and id_ not in known | placed and _is_shops(data)
            is_early = is_early and data.account_id == awaited[id_].account_id
            (result.noted if is_early else result.updates).append(message)
        elif isinstance(data, OrderUnaddressed):
            if id_ in known:
                (result.updates if data.tracking_status else result.done).append(message)
            else:
                # With a status it was placed, so a message with an address may be on its way.
                may_come = bool(data.tracking_status) and message.attempt < MAX_ATTEMPTS
                is_early = id_ not in awaited or may_come
                (result.early if is_early else result.unaddressed).append(message)
        elif id_ in to_come:
            to_come.discard(id_)
            known.add(id_)
            result.created.append(message)
            if id_ in awaited:
                result.updates.extend(_cancellations(awaited[id_], message))
        elif data.has_moved or (id_ in since and message.time < since[id_]):
            result.updates.append(message)
        else:
            (result.done if id_ in known else result.early).append(message)
    if result.noted:
        _note(session, result.noted, awaited)
    return result


class _Cancellation(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A stored cancellation: its time, message id and reason."""

    at: datetime
    by: UUID
    reason: str


def _note(session: Session, messages: Sequence[Cancelled], rows: Mapping[UUID, Row[Any]]) -> None:
    """Store cancellations beside awaited orders, the latest in the columns of earlier versions."""
    found: dict[UUID, set[_Cancellation]] = {}
    for m in messages:
        id_ = m.data.order_id
        one = _Cancellation(m.time, m.id, m.data.reason)
        found.setdefault(id_, set(_stored(rows[id_]))).add(one)
    latest = {id_: sorted(all_, reverse=True)[:MOST_CANCELLATIONS] for id_, all_ in found.items()}
    session.execute(
        _CANCEL,
        {
            "order_id": arrays.uuids(latest),
            "at": arrays.times(first.at for first, *_ in latest.values()),
            "by": arrays.uuids(first.by for first, *_ in latest.values()),
            "reason": arrays.texts(first.reason for first, *_ in latest.values()),
            "before": arrays.texts(
                msgspec.json.encode(before).decode() for _, *before in latest.values()
            ),
        },
    )


def _stored(row: Row[Any]) -> list[_Cancellation]:
    if row.cancelled_by is None:
        return []
    at = row.cancelled_at.astimezone(UTC)
    latest = _Cancellation(at, row.cancelled_by, row.cancel_reason or "")
    before = msgspec.convert(row.cancelled_before or [], list[_Cancellation], strict=False)
    return [latest, *before]


def _cancellations(row: Row[Any], placed: Received[OrderCreated]) -> list[Cancelled]:
    """Return the cancellations stored beside an order that is placed now, as messages."""
    return [_cancelled(one.by, one.at, one.reason, placed.data) for one in _stored(row)]


def _cancelled(id_: UUID, at: datetime, reason: str, about: Any) -> Cancelled:
    event = OrderCancelled(
        order_id=about.order_id,
        account_id=about.account_id,
        order_number=about.order_number,
        reason=reason,
    )
    data = cast("OrderCancelled", in_test(event)) if about.IS_TEST else event
    return Received(id=id_, type=data.TYPE, time=at, correlation_id=about.order_id, data=data)


class Placing(NamedTuple):
    """Orders that turn out to be placed before they were accepted.

    Attributes:
        since: by order, the time of the earliest message that it was placed.
        cancelled: earlier cancellations that did not count and now may.
    """

    since: Mapping[UUID, datetime]
    cancelled: list[Cancelled]


def placing(
    session: Session, updates: Iterable[Received[Any]], accepted_at: Mapping[UUID, datetime]
) -> Placing:
    """Return since when orders are placed, where an update is older than the order's acceptance.

    Args:
        session: the transaction, with the orders locked.
        updates: the updates.
        accepted_at: by order, the time of the message that created it.
    """
    before = [
        m
        for m in updates
        if (accepted := accepted_at.get(m.data.order_id)) is not None
        and m.time < accepted
        and (isinstance(m.data, OrderCreated) or is_over(m, accepted))
    ]
    if not before:
        return Placing({}, [])
    about = {m.data.order_id: m.data for m in before}
    bounds = {"most": MOST_CANCELLATIONS, "read": MOST_EARLIER}
    rows = session.execute(_BEFORE, {"ids": arrays.uuids(about)} | bounds).all()
    times = [(m.data.order_id, m.time) for m in before if isinstance(m.data, OrderCreated)]
    times += [(row.order_id, row.at) for row in rows if row.tracking_status != CANCELLED]
    since: dict[UUID, datetime] = {}
    for id_, at in times:
        since[id_] = min(at, since.get(id_, at))
    cancelled = [
        _cancelled(row.event_id, row.at, row.note, about[row.order_id])
        for row in rows
        if row.tracking_status == CANCELLED
    ]
    return Placing(since, cancelled)


def is_over(message: Received[Any], placed_at: datetime) -> bool:
    """Return whether a message is a shop's cancellation from before the order was placed.

    A sender's own never is, since its clock need not agree with ours.

    Args:
        message: about a recorded order.
        placed_at: the time of the earliest message that the order was placed.
    """
    event = message.data
    return isinstance(event, OrderCancelled) and message.time < placed_at and _is_shops(event)


def is_refund_of_sent(event: Any, status: TrackingStatus) -> bool:
    """Return whether a shop's cancellation is the refund of an order that is under way.

    WooCommerce dates the status `completed` alone. Of a shop's own `shipped` without a tracking
    number only the recorder knows that the order left before it was refunded.

    Args:
        event: about the order.
        status: the order's current status.
    """
    is_under_way = status in (TrackingStatus.IN_TRANSIT, TrackingStatus.OUT_FOR_DELIVERY)
    is_refund = isinstance(event, OrderCancelled) and event.reason == REFUNDED
    return is_under_way and is_refund and _is_shops(event)


def is_state(message: Received[Any]) -> bool:
    """Return whether a message is one of a shop's several about a placed order.

    A creation is only if it has the order's id: any other may be another order, under a number
    that was used again.
    """
    event = message.data
    is_creation = isinstance(event, OrderCreated) and message.id == event.order_id
    return isinstance(event, OrderPlaced) or (
        is_creation and bool(event.metadata) and "shop" in event.metadata
    )


def has_moved(event: Any) -> bool:
    """Return whether an update has a status; else it only shows that the order is placed."""
    if isinstance(event, OrderPlaced):
        return event.has_moved
    return not isinstance(event, OrderCreated) or event.tracking_status.value != PENDING


def is_of_platform(event: Any) -> bool:
    """Return whether an event came by a platform's own webhook."""
    return event.OF_PLATFORM or (isinstance(event, OrderCancelled) and _is_shops(event))


def _is_shops(event: OrderCancelled) -> bool:
    return is_of_shop(event.account_id, event.order_id, event.order_number, is_test=event.IS_TEST)


_REMEMBER = text("""
    INSERT INTO awaited_orders (order_id, account_id, since)
    SELECT DISTINCT ON (order_id) order_id, account_id, now()
    FROM unnest(CAST(:order_id AS uuid[]), CAST(:account_id AS uuid[]))
         AS given (order_id, account_id)
    ORDER BY order_id
    ON CONFLICT DO NOTHING
""")
# By id, so that two recorders do not deadlock.
_HOLD = text("""
    SELECT order_id, account_id, cancelled_at, cancelled_by, cancel_reason, cancelled_before
    FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[])) ORDER BY order_id FOR UPDATE
""")
_RECORDED = text("SELECT id, accepted_at FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))")
_FORGET = text("DELETE FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))")
_CANCEL = text("""
    UPDATE awaited_orders
    SET cancelled_at = given.at, cancelled_by = given.by, cancel_reason = given.reason,
        cancelled_before = CAST(nullif(given.before, '[]') AS jsonb)
    FROM unnest(CAST(:order_id AS uuid[]), CAST(:at AS timestamptz[]), CAST(:by AS uuid[]),
                CAST(:reason AS text[]), CAST(:before AS text[]))
         AS given (order_id, at, by, reason, before)
    WHERE awaited_orders.order_id = given.order_id
""")
# The earliest entry that is no cancellation, and the latest cancellations that do not count. A shop
# may have sent any number of earlier updates, and the orders are locked meanwhile: so the inner
# queries end after `:read` entries of the index.
_BEFORE = text("""
    SELECT orders.id AS order_id, earlier.*
    FROM orders CROSS JOIN LATERAL (
        (SELECT event_id, tracking_status, '' AS note, at FROM (
            SELECT event_id, tracking_status, at FROM order_status_history
            WHERE order_id = orders.id AND at < accepted_at ORDER BY at LIMIT :read
         ) AS first_entries
         WHERE tracking_status <> 'CANCELLED' ORDER BY at LIMIT 1)
        UNION ALL
        (SELECT event_id, tracking_status, note, at FROM (
            SELECT event_id, tracking_status, note, at, applied FROM order_status_history
            WHERE order_id = orders.id AND at < accepted_at ORDER BY at DESC LIMIT :read
         ) AS last_entries
         WHERE tracking_status = 'CANCELLED' AND NOT applied ORDER BY at DESC LIMIT :most)
    ) AS earlier
    WHERE orders.id = ANY(CAST(:ids AS uuid[]))
""")
