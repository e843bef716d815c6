"""The delivery steps of an order, and the parcel fields shown to its customer."""

from typing import NamedTuple

from shared.bus.contract.events import FINAL_STATUSES, TrackingStatus
from shared.languages.language import Language

STATUSES = (
    TrackingStatus.PENDING,
    TrackingStatus.IN_TRANSIT,
    TrackingStatus.OUT_FOR_DELIVERY,
    TrackingStatus.DELIVERED,
)


PARCEL = ("carrier", "tracking_number", "tracking_url")


class Step(NamedTuple):
    """A delivery step, and whether the order has reached it."""

    name: str
    is_done: bool


def steps(say: Language, now: str) -> list[Step]:
    """Return the delivery steps of an order; empty if its status is none of them.

    Args:
        say: the language.
        now: the order's status of the API; old orders have spaces in it.
    """
    try:
        place = STATUSES.index(TrackingStatus(now))
    except ValueError:
        return []
    return [Step(say.status(status), number <= place) for number, status in enumerate(STATUSES)]


def parcel_fields(now: str) -> tuple[str, ...]:
    """Return the parcel fields of an order that are shown to its customer, in emails and on pages.

    None for a cancelled order, and no estimated delivery in a final status.

    Args:
        now: the order's status of the API; old orders have spaces in it.
    """
    status = TrackingStatus(now)
    if status is TrackingStatus.CANCELLED:
        return ()
    return PARCEL if status in FINAL_STATUSES else (*PARCEL, "estimated_delivery")
