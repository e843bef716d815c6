"""Orders that earlier versions knew under other ids.

Those of their shop and their number there alone had no other name, so a shop that began to count
anew had its new orders taken for old ones. Those of their shop's address as a link had it, with the
language of whoever was there, had several. What is said now of such an order names all ids; a
former one counts where the order is recorded or waited for under it, and is the same order.

While both versions run, the earlier may tell of an order that the later has recorded. A creation
has the order's id as its own, so that of the id which the earlier one gives is entered in the inbox
beside it, as if it had come.
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
"""How much a shop's clock may be ahead of ours: when an order was accepted was cut to our time."""


class Renamed(NamedTuple):
    """Messages, about the orders that are known under former ids where there are such.

    Attributes:
        messages: what is to be done.
        again: creations of those that are recorded, and changes that stand for one.
    """

    messages: list[Received[Any]]
    again: list[Received[Any]]


def renamed(session: Session, messages: Sequence[Received[Any]]) -> Renamed:
    """Find the orders that are known under former ids.

    Args:
        session: may read the orders, and which are waited for, and write the inbox.
        messages: what was said.
    """
    former = {id_ for m in messages for id_ in _former(m)}
    if not former:
        return Renamed(list(messages), [])
    spelled = (m.data.former.spelled_id for m in messages if _creates(m) and _former(m))
    beside = {id_ for id_ in spelled if id_ is not UNSET}
    # Before they are looked for: of two recorders the other goes on when the order is there.
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
            is_again = _creates(message) and row.is_recorded
            (result.again if is_again else result.messages).append(about)
    return result


def _creates(message: Received[Any]) -> bool:
    """Whether it is an order's creation, or a change that stands for one and says no more."""
    return message.type in CREATED or getattr(message.data, "is_new", False)


def _former(message: Received[Any]) -> list[UUID]:
    said = getattr(message.data, "former", UNSET)
    if said is UNSET:
        return []
    return [id_ for id_ in (said.spelled_id, said.order_id) if id_ is not UNSET]


def _is_it(row: Row[Any], said: FormerId) -> bool:
    """Whether it is that order: known before this one was made, it is one of the shop before."""
    return bool(row.since >= said.made_at - AHEAD)


# Of two rows for one the later is read last, and counts.
_KNOWN = text("""
    SELECT order_id AS id, account_id, since, false AS is_recorded
    FROM awaited_orders WHERE order_id = ANY(CAST(:ids AS uuid[]))
    UNION ALL
    SELECT id, account_id, accepted_at, true
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))
""")
