"""Orders that earlier versions recorded under an id of their shop and their number there alone.

Those had no other name, so a shop that began to count anew had its new orders taken for old ones.
What is said now of such an order names both ids; the former one counts where the order was recorded
under it, and is the same order.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from msgspec import UNSET, structs
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.contract.events import CREATED, FormerId
from shared.bus.contract.message import Received
from shared.db import arrays

AHEAD = timedelta(minutes=10)
"""How much a shop's clock may be ahead of ours: when an order was accepted was cut to our time."""


def renamed(session: Session, messages: Sequence[Received[Any]]) -> list[Received[Any]]:
    """The messages, about the orders that were recorded under former ids where there are such.

    Creations of these are left out: they are recorded.

    Args:
        session: may read the orders.
        messages: what was said.
    """
    former = {said.order_id for m in messages if (said := _former(m)) is not UNSET}
    if not former:
        return list(messages)
    rows = session.execute(_RECORDED, {"ids": arrays.uuids(former)})
    recorded = {(row.account_id, row.id): row.accepted_at for row in rows}
    if not recorded:
        return list(messages)
    found = []
    for message in messages:
        said = _former(message)
        accepted_at = None if said is UNSET else recorded.get(_key(message, said))
        # Accepted before this one was made, it is an order of the shop as it was before.
        if accepted_at is None or accepted_at < said.made_at - AHEAD:
            found.append(message)
        elif message.type not in CREATED:
            about = structs.replace(message.data, order_id=said.order_id)
            found.append(replace(message, data=about))
    return found


def _former(message: Received[Any]) -> Any:
    return getattr(message.data, "former", UNSET)


def _key(message: Received[Any], said: FormerId) -> tuple[UUID, UUID]:
    return message.data.account_id, said.order_id


_RECORDED = text(
    "SELECT id, account_id, accepted_at FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))"
)
