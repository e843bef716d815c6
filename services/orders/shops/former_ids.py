"""Shops' orders that earlier versions recorded under other ids.

Earlier ids were derived from the shop and its order number only, so a shop that restarted its
numbering had new orders taken for old ones; or from the shop's address as in a link, which may
contain a language, so one order had several ids. Messages now name all ids of an order. A former id
is used if the order is recorded or awaited under it.

While both versions run, the earlier one may send an order that the later one has recorded. A
creation's message id is the order's id, so the id that the earlier version uses is claimed in the
inbox as well, as if it had been received.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import UNSET, structs
from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from services.orders import SOURCE
from shared.bus.consume import inbox
from shared.bus.contract.events import CREATED, FormerId
from shared.bus.contract.message import Received
from shared.db import arrays

AHEAD = timedelta(minutes=10)
"""How far a shop's clock may be ahead of ours: the time of acceptance was cut to our time."""


class Renamed(NamedTuple):
    """Messages with the ids under which their orders are known.

    Attributes:
        messages: the messages to handle.
        again: creations of recorded orders, and changes with no more content than a creation.
    """

    messages: list[Received[Any]]
    again: list[Received[Any]]


def renamed(session: Session, messages: Sequence[Received[Any]]) -> Renamed:
    """Replace the order ids of messages by former ids under which the orders are known.

    Args:
        session: a session that may read orders and awaited orders, and write the inbox.
        messages: the messages.
    """
    former = {id_ for m in messages for id_ in _former(m)}
    if not former:
        return Renamed(list(messages), [])
    spelled = (m.data.former.spelled_id for m in messages if _creates(m) and _former(m))
    beside = {id_ for id_ in spelled if id_ is not UNSET}
    # Claimed before the query: of two recorders the second continues when the order exists.
    if beside:
        inbox.claim(session, SOURCE, sorted(beside))
        messages = [m for m in messages if m.id not in beside]
    rows = session.execute(_KNOWN, {"ids": arrays.uuids(former)})
    known = {(row.account_id, row.id): row for row in rows}
    result = Renamed([], [])
    for message in messages:
        rows_of = (known.get((message.data.account_id, id_)) for id_ in _former(message))
        row = next((row for row in rows_of if row and _is_it(row, message.data.former)), None)
        if row is None:
            result.messages.append(message)
        else:
            data = structs.replace(message.data, order_id=row.id)
            about = structs.replace(message, data=data)
            has_moved = getattr(message.data, "has_moved", False)
            is_again = _creates(message) and row.is_recorded and not has_moved
            (result.again if is_again else result.messages).append(about)
    return result


def _creates(message: Received[Any]) -> bool:
    """Return whether a message is an order's creation, or a change that may create one."""
    return message.type in CREATED or getattr(message.data, "is_new", False)


def _former(message: Received[Any]) -> list[UUID]:
    former = getattr(message.data, "former", UNSET)
    if former is UNSET:
        return []
    return [id_ for id_ in (former.spelled_id, former.order_id) if id_ is not UNSET]


def _is_it(row: Row[Any], former: FormerId) -> bool:
    """Return whether a row is that order: one older than the order itself is another order."""
    return bool(row.since >= former.made_at - AHEAD)


# An order may have a row in both tables: the second is read last, and counts.
_KNOWN = text("""
    SELECT order_id AS id, account_id, since, false AS is_recorded
    FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))
    UNION ALL
    SELECT id, account_id, accepted_at, true
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))
""")
