"""Orders that a shop has told of before anybody could be told of them: not placed, or unaddressed.

They are remembered by their ids alone. What is said of one later, when it is placed and has an
address, creates it, and so it does of one that is new; of any other order that is not known it is
an update, and waits as such.

A shop cancels what is not paid, and takes the payment all the same. So its cancellation counts if
it is later than the earliest word that the order was placed, whichever comes first: that of an
order which is waited for stands beside it, and one that is over is looked at again when an earlier
word comes.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

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

CANCELLED, PENDING = TrackingStatus.CANCELLED.value, TrackingStatus.PENDING.value
Placed = Received[OrderPlaced]
Cancelled = Received[OrderCancelled]
Change = Placed | Received[OrderUnaddressed] | Cancelled


class Sorted(NamedTuple):
    """What is to be done with messages about orders that are placed, or are to come no more.

    Attributes:
        created: those that create an order.
        updates: those that may move one, or say that it was placed before.
        done: those that tell nothing new of an order that is there.
        early: those that tell nothing new of an order that is not there: they may have overtaken
            what said that it is waited for, or that it was placed.
        unaddressed: those of orders that are waited for, and cannot be mailed yet.
        noted: cancellations of orders that are waited for.
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
    """Write down that orders are waited for."""
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
    """Tell which create an order; it is waited for no more.

    Args:
        session: the transaction.
        messages: what was said.
        creations: of the batch. A change of a young order is one, so it may be waited for.
    """
    changes: list[Received[Any]] = sorted(messages, key=lambda m: (m.time, m.id))
    created = {m.data.order_id: m for m in reversed(creations)}
    of_shops = {id_ for id_, m in created.items() if m.data.metadata and "shop" in m.data.metadata}
    result = Sorted([], [], [], [], [], [])
    if not changes and not of_shops:
        return result
    ids = {"ids": arrays.uuids(of_shops.union(m.data.order_id for m in changes))}
    # Of two recorders that have one, the other goes on when it is recorded, and known.
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
    result.updates.extend(
        _cancellation(awaited[id_], created[id_])
        for id_ in sorted(placed & created.keys())
        if awaited[id_].cancelled_by is not None
    )
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
                # What has moved was placed, so a word of that is on its way, and may have one.
                may_come = bool(data.tracking_status) and message.attempt < MAX_ATTEMPTS
                is_early = id_ not in awaited or may_come
                (result.early if is_early else result.unaddressed).append(message)
        elif id_ in to_come:
            to_come.discard(id_)
            known.add(id_)
            result.created.append(message)
            if id_ in awaited and awaited[id_].cancelled_by is not None:
                result.updates.append(_cancellation(awaited[id_], message))
        elif data.has_moved or (id_ in since and message.time < since[id_]):
            result.updates.append(message)
        else:
            (result.done if id_ in known else result.early).append(message)
    if result.noted:
        _note(session, result.noted)
    return result


def _note(session: Session, messages: Sequence[Cancelled]) -> None:
    """Keep the latest cancellation of each beside the order."""
    session.execute(
        _CANCEL,
        {
            "order_id": arrays.uuids(m.data.order_id for m in messages),
            "at": arrays.times(m.time for m in messages),
            "by": arrays.uuids(m.id for m in messages),
            "reason": arrays.texts(m.data.reason for m in messages),
        },
    )


def _cancellation(row: Row[Any], placed: Received[OrderCreated]) -> Cancelled:
    """What was noted beside an order that is placed now, as it came."""
    return _cancelled(row.cancelled_by, row.cancelled_at, row.cancel_reason or "", placed.data)


def _cancelled(id_: UUID, at: datetime, reason: str, about: Any) -> Cancelled:
    said = OrderCancelled(
        order_id=about.order_id,
        account_id=about.account_id,
        order_number=about.order_number,
        reason=reason,
    )
    data = cast("OrderCancelled", in_test(said)) if about.IS_TEST else said
    return Received(id=id_, type=data.TYPE, time=at, correlation_id=about.order_id, data=data)


class Placing(NamedTuple):
    """Since when orders are placed, where it is not since they were accepted.

    Attributes:
        since: by order, the earliest word that it was placed.
        cancelled: what was over by a later word, and counts by that one.
    """

    since: Mapping[UUID, datetime]
    cancelled: list[Cancelled]


def placing(
    session: Session, updates: Iterable[Received[Any]], accepted_at: Mapping[UUID, datetime]
) -> Placing:
    """Look what is known from before orders were accepted, where a message is from before.

    Args:
        session: the transaction, which holds the orders.
        updates: what was said.
        accepted_at: by order, the time of what created it.
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
    rows = session.execute(_BEFORE, {"ids": arrays.uuids(about)}).all()
    words = [(m.data.order_id, m.time) for m in before if isinstance(m.data, OrderCreated)]
    words += [(row.order_id, row.at) for row in rows if row.tracking_status != CANCELLED]
    since: dict[UUID, datetime] = {}
    for id_, at in words:
        since[id_] = min(at, since.get(id_, at))
    cancelled = [
        _cancelled(row.event_id, row.at, row.note, about[row.order_id])
        for row in rows
        if row.tracking_status == CANCELLED and not row.applied
    ]
    return Placing(since, cancelled)


def is_over(message: Received[Any], placed_at: datetime) -> bool:
    """Whether it is a shop's word that an order is cancelled, from before it was placed.

    A sender's own is not: its clock need not agree with ours.

    Args:
        message: about an order that is recorded.
        placed_at: the earliest word that the order was placed.
    """
    said = message.data
    return isinstance(said, OrderCancelled) and message.time < placed_at and _is_shops(said)


def is_word(message: Received[Any]) -> bool:
    """Whether it is a shop's word that an order is placed, of which there are several.

    A creation is one where it has the order's id: any other may be another order, under a number
    that was used again.
    """
    said = message.data
    is_creation = isinstance(said, OrderCreated) and message.id == said.order_id
    return isinstance(said, OrderPlaced) or (
        is_creation and bool(said.metadata) and "shop" in said.metadata
    )


def has_moved(said: Any) -> bool:
    """Whether an update says where an order is; else it says no more than that it is placed."""
    if isinstance(said, OrderPlaced):
        return said.has_moved
    return not isinstance(said, OrderCreated) or said.tracking_status.value != PENDING


def _is_shops(said: OrderCancelled) -> bool:
    return is_of_shop(said.account_id, said.order_id, said.order_number, is_test=said.IS_TEST)


_REMEMBER = text("""
    INSERT INTO awaited_orders (order_id, account_id, since)
    SELECT DISTINCT ON (order_id) order_id, account_id, now()
    FROM unnest(CAST(:order_id AS uuid[]), CAST(:account_id AS uuid[]))
         AS given (order_id, account_id)
    ORDER BY order_id
    ON CONFLICT DO NOTHING
""")
# In the order of the ids, so that two recorders do not deadlock.
_HOLD = text("""
    SELECT order_id, account_id, cancelled_at, cancelled_by, cancel_reason FROM awaited_orders
    WHERE order_id = ANY(CAST(:ids AS uuid[])) ORDER BY order_id FOR UPDATE
""")
_RECORDED = text("SELECT id, accepted_at FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))")
_FORGET = text("DELETE FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))")
_CANCEL = text("""
    UPDATE awaited_orders SET cancelled_at = given.at, cancelled_by = given.by,
                              cancel_reason = given.reason
    FROM (
        SELECT DISTINCT ON (order_id) order_id, at, by, reason
        FROM unnest(CAST(:order_id AS uuid[]), CAST(:at AS timestamptz[]), CAST(:by AS uuid[]),
                    CAST(:reason AS text[])) AS given (order_id, at, by, reason)
        ORDER BY order_id, at DESC, by DESC
    ) AS given
    WHERE awaited_orders.order_id = given.order_id
      AND (cancelled_at IS NULL OR cancelled_at < given.at)
""")
_BEFORE = text("""
    SELECT said.order_id, event_id, said.tracking_status, note, at, applied
    FROM order_status_history AS said JOIN orders ON orders.id = said.order_id
    WHERE said.order_id = ANY(CAST(:ids AS uuid[])) AND at < accepted_at
""")
