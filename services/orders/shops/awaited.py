"""Orders that a shop has told of before anybody could be told of them: not placed, or unaddressed.

They are remembered by their ids alone. What is said of one later, when it is placed and has an
address, creates it; of any other order that is not known it is an update, and waits as such.

What was said of one before it was placed is over: a shop cancels what is not paid, and takes the
payment all the same.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.events import (
    OrderCancelled,
    OrderNotPlaced,
    OrderPlaced,
    OrderUnaddressed,
)
from shared.bus.contract.message import Received
from shared.db import arrays
from shared.ids import is_of_shop

Placed = Received[OrderPlaced]
Change = Placed | Received[OrderUnaddressed]


class Sorted(NamedTuple):
    """What is to be done with messages about orders that are placed.

    Attributes:
        created: those that create an order.
        updates: those that may move one.
        done: those that tell nothing new of an order that is there.
        early: those that tell nothing new of an order that is not there: they may have overtaken
            what said that it is waited for.
        unaddressed: those of orders that are waited for, and cannot be mailed yet.
    """

    created: list[Placed]
    updates: list[Change]
    done: list[Change]
    early: list[Change]
    unaddressed: list[Change]


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
                "now": datetime.now(UTC),
            },
        )


def of(session: Session, ids: Collection[UUID]) -> set[UUID]:
    """Those of these orders that are waited for."""
    if not ids:
        return set()
    return set(session.execute(_AWAITED, {"ids": arrays.uuids(ids)}).scalars())


def sort(session: Session, messages: Iterable[Change], created: Collection[UUID]) -> Sorted:
    """Tell which create an order; it is waited for no more.

    Args:
        session: the transaction.
        messages: what was said.
        created: orders that others of the batch create.
    """
    changes: list[Received[Any]] = sorted(messages, key=lambda m: (m.time, m.id))
    if not changes:
        return Sorted([], [], [], [], [])
    ids = {"ids": arrays.uuids({m.data.order_id for m in changes})}
    awaited = set(session.execute(_AWAITED, ids).scalars())
    placed = {m.data.order_id for m in changes if isinstance(m.data, OrderPlaced)}
    if placed & awaited:
        # Of two recorders that see it, one removes it; for the other it is recorded by then.
        ended = {"ids": arrays.uuids(placed & awaited)}
        awaited = awaited - placed | set(session.execute(_FORGET, ended).scalars())
    known = set(session.execute(_RECORDED, ids).scalars()) | set(created)
    result = Sorted([], [], [], [], [])
    for message in changes:
        id_, data = message.data.order_id, message.data
        if isinstance(data, OrderUnaddressed):
            if id_ in known:
                (result.updates if data.tracking_status else result.done).append(message)
            else:
                (result.unaddressed if id_ in awaited else result.early).append(message)
        elif id_ in awaited and id_ not in known:
            known.add(id_)
            result.created.append(message)
        elif data.has_moved:
            result.updates.append(message)
        else:
            (result.done if id_ in known else result.early).append(message)
    return result


def is_over(message: Received[Any], accepted_at: datetime) -> bool:
    """Whether it is a shop's word that an order is cancelled, from before it was placed.

    A sender's own is not: its clock need not agree with ours.

    Args:
        message: about an order that is recorded.
        accepted_at: when the order was placed.
    """
    if not isinstance(message.data, OrderCancelled) or message.time >= accepted_at:
        return False
    said = message.data
    return is_of_shop(said.account_id, said.order_id, said.order_number, is_test=said.IS_TEST)


_REMEMBER = text("""
    INSERT INTO awaited_orders (order_id, account_id, since)
    SELECT DISTINCT ON (order_id) order_id, account_id, CAST(:now AS timestamptz)
    FROM unnest(CAST(:order_id AS uuid[]), CAST(:account_id AS uuid[]))
         AS given (order_id, account_id)
    ORDER BY order_id
    ON CONFLICT DO NOTHING
""")
_AWAITED = text("SELECT order_id FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))")
_RECORDED = text("SELECT id FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))")
# In the order of the ids, so that two recorders do not deadlock.
_FORGET = text("""
    DELETE FROM awaited_orders WHERE order_id IN (
        SELECT order_id FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))
        ORDER BY order_id FOR UPDATE
    )
    RETURNING order_id
""")
