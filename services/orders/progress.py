"""How an order moves: what an update does to it, as a pure value.

A later stamp wins, whatever the order of arrival; of two with one stamp, the one with the greater
message id. Any update beats the status an order was created with, since the sender's clock need not
agree with ours. DELIVERED and CANCELLED are final.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared.bus.events import FINAL_STATUSES, TrackingStatus


@dataclass(frozen=True, slots=True)
class Position:
    """Where an order is.

    Attributes:
        status: the status.
        at: when the sender said so.
        event_id: the message that said so; the order's own id when it was created with it.
    """

    status: TrackingStatus
    at: datetime
    event_id: UUID


def moves(order_id: UUID, current: Position, update: Position) -> bool:
    """Whether `update` counts for an order that is at `current`."""
    if current.status in FINAL_STATUSES:
        return False
    if current.event_id == order_id:
        return True
    return (update.at, update.event_id) > (current.at, current.event_id)


def is_news(current: Position, update: Position, note: str) -> bool:
    """Whether the customer should hear of an update that counts.

    The same status again is news only when the sender had something to say about it.
    """
    return update.status is not current.status or bool(note.strip())
