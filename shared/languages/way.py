"""The way of an order, in words, and how far it has come."""

from typing import NamedTuple

from shared.bus.contract.events import TrackingStatus
from shared.languages.language import Language

WAY = (
    TrackingStatus.PENDING,
    TrackingStatus.IN_TRANSIT,
    TrackingStatus.OUT_FOR_DELIVERY,
    TrackingStatus.DELIVERED,
)


class Step(NamedTuple):
    """A step of an order's way, and whether the order has come to it."""

    name: str
    is_done: bool


def steps(say: Language, now: str) -> list[Step]:
    """The way of an order; nothing when it is not on it.

    Args:
        say: the words.
        now: its status, as the API has it; orders of old have spaces.
    """
    try:
        place = WAY.index(TrackingStatus(now))
    except ValueError:
        return []
    return [Step(say.status(one), number <= place) for number, one in enumerate(WAY)]
