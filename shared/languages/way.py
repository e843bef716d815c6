"""The way of an order, in words, how far it has come, and what is told of its parcel there."""

from typing import NamedTuple

from shared.bus.contract.events import FINAL_STATUSES, TrackingStatus
from shared.languages.language import Language

WAY = (
    TrackingStatus.PENDING,
    TrackingStatus.IN_TRANSIT,
    TrackingStatus.OUT_FOR_DELIVERY,
    TrackingStatus.DELIVERED,
)


PARCEL = ("carrier", "tracking_number", "tracking_url")


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


def told_of_parcel(now: str) -> tuple[str, ...]:
    """The members of an order about its parcel that its customer is told, by email and on the page.

    What does not come is not followed, and what is there is not due.

    Args:
        now: the order's status, as the API has it; orders of old have spaces.
    """
    status = TrackingStatus(now)
    if status is TrackingStatus.CANCELLED:
        return ()
    return PARCEL if status in FINAL_STATUSES else (*PARCEL, "estimated_delivery")
