"""The status rules of an order: which of two updates counts, and which is worth an email. Pure.

The final status does not depend on the order in which updates arrive: DELIVERED beats CANCELLED,
and both beat every open status, whatever their timestamps. Of one final status the earlier
timestamp counts (when it came true), of open ones the later. A sender's timestamps have
microseconds, and two equal ones are decided by the message id. A platform's have seconds, or do not
change with the order (WooCommerce without HPOS), but it sends the order's state at the time of
sending: of two equal ones the later arrival counts.

Any update beats the open status an order was created with, since the sender's clock need not agree
with ours. An order enters DELIVERED once at most and never leaves it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from shared.bus.contract.events import FINAL_STATUSES, TrackingStatus


@dataclass(frozen=True, slots=True)
class Position:
    """An order's status and its source.

    Attributes:
        status: the status.
        at: the sender's timestamp.
        event_id: the message with that status. For the initial status it is the order's id, unless
            a platform's change created the order: its timestamps are all by one clock.
    """

    status: TrackingStatus
    at: datetime
    event_id: UUID


def applies(
    order_id: UUID, current: Position, update: Position, *, by_arrival: bool = False
) -> bool:
    """Return whether `update`, which arrived after `current`, counts over it.

    Args:
        order_id: the order.
        current: its position.
        update: a message's position.
        by_arrival: whether the later arrival wins a tie (a platform's), not the greater id.
    """
    ranks = _rank(order_id, current), _rank(order_id, update)
    if ranks[0] != ranks[1]:
        return ranks[1] > ranks[0]
    if by_arrival:
        return update.event_id != current.event_id
    return update.event_id.int > current.event_id.int


def is_news(current: Position, update: Position, note: str, *, tells_more: bool = False) -> bool:
    """Return whether the customer gets an email about an update that counts.

    An open status that repeats needs a note or new tracking data.

    Args:
        current: the position before.
        update: the position now.
        note: the sender's note.
        tells_more: whether the known tracking data changed.
    """
    if update.status is not current.status:
        return True
    return update.status not in FINAL_STATUSES and (tells_more or bool(note.strip()))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A parcel that has arrived was not cancelled, whatever was requested in between.
_FINALS = {TrackingStatus.CANCELLED: 1, TrackingStatus.DELIVERED: 2}


def _rank(order_id: UUID, position: Position) -> tuple[int, int, timedelta]:
    """Return a key by which the greatest position is the order's status."""
    final = _FINALS.get(position.status, 0)
    is_creation = position.event_id == order_id
    since = position.at - _EPOCH
    if final:
        return final, is_creation, -since
    # A shop may send a new order twice: of these, the one with a status other than PENDING wins.
    kind = int(position.status is not TrackingStatus.PENDING) if is_creation else 2
    return 0, kind, since
