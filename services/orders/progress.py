"""How an order moves: what an update does to it, as a pure value.

An order ends where the greatest of its updates puts it, in whatever order they arrive: DELIVERED is
greater than CANCELLED, and that than every open status, whatever their stamps; of one final status
the earlier stamp counts, since that is when it came true; of open ones the later; and of one stamp
the greater message id. Any update beats the open status an order was created with, since the
sender's clock need not agree with ours.

So an order comes to DELIVERED once at most, and never leaves it: the customer hears of it once, and
of nothing after it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from shared.bus.contract.events import FINAL_STATUSES, TrackingStatus


@dataclass(frozen=True, slots=True)
class Position:
    """Where an order is.

    Attributes:
        status: the status.
        at: when the sender said so.
        event_id: the message that said so; the order's own id when it was created with it, but by
            a platform, whose words are all by one clock.
    """

    status: TrackingStatus
    at: datetime
    event_id: UUID


def moves(order_id: UUID, current: Position, update: Position) -> bool:
    """Whether `update` counts for an order that is at `current`."""
    return _rank(order_id, update) > _rank(order_id, current)


def is_news(current: Position, update: Position, note: str, *, tells_more: bool = False) -> bool:
    """Whether the customer should hear of an update that counts.

    The same open status again is news only when the sender had something to say about it.

    Args:
        current: where the order was.
        update: where it is now.
        note: what the sender said.
        tells_more: whether more, or other, is known now of where the parcel can be followed.
    """
    if update.status is not current.status:
        return True
    return update.status not in FINAL_STATUSES and (tells_more or bool(note.strip()))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A parcel that has arrived was not cancelled, whatever was wanted in between.
_FINALS = {TrackingStatus.CANCELLED: 1, TrackingStatus.DELIVERED: 2}
Rank = tuple[int, int, timedelta, int]


def _rank(order_id: UUID, position: Position) -> Rank:
    """Greater is where the order ends."""
    final = _FINALS.get(position.status, 0)
    is_creation = position.event_id == order_id
    since = position.at - _EPOCH
    if final:
        return final, is_creation, -since, position.event_id.int
    # A shop that says twice that it has a new order, and once where it is, says where it is.
    said = int(position.status is not TrackingStatus.PENDING) if is_creation else 2
    return 0, said, since, position.event_id.int
