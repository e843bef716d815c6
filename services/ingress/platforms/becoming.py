"""What an order of a platform becomes here: events, under ids that any copy of it has too.

An order's id is derived from the account, the platform and what names the order there; its
creation has that id as its own. A change is known by what it says and since when. So a delivery
that comes twice, or that several webhooks make of one change, counts once, whatever they call it.

An order that is made and not placed, or has no address, is waited for: the change that has both
creates it. So does a change of one that was made within minutes, whatever came of its creation.
Each is a message of its own, since the earliest of them says since when the order is placed.
"""

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import UUID

from msgspec import UNSET

from services.ingress.platforms.platform import Platform, Said, Topic, moment
from shared.bus.contract.events import (
    CREATED,
    CustomerDetails,
    Event,
    Former,
    FormerId,
    OrderCancelled,
    OrderCreated,
    OrderNotPlaced,
    OrderPlaced,
    OrderUnaddressed,
    TrackingStatus,
    in_test,
)
from shared.ids import derived_id, new_id

Order = TypeVar("Order", bound=OrderCreated)
Note = Literal[
    "no_change", "not_placed", "no_email_address", "old_order", "topic_not_taken", "test", "ping"
]
"""Why nothing is recorded of a delivery that is in order, as the request log has it."""

SENTENCES: dict[Note, str] = {
    "no_change": "The order has no state that a customer is told of: nothing was changed, but that "
    "an order which waited to be placed is recorded.",
    "not_placed": "The order is a draft, unpaid, failed or cancelled: it is recorded once it is "
    "placed.",
    "no_email_address": "The order has no email address that can be mailed: it is not recorded. "
    "Of one that was recorded with an address, its new state is.",
    "old_order": "The order was made more than a week ago, so it is taken for an imported one: it "
    "is not recorded, and nobody is told.",
    "topic_not_taken": "Deliveries about this are not recorded.",
    "test": "A test arrived, and its signature is right. Nothing was recorded.",
    "ping": "We are here. Nothing was recorded.",
}


_FRESH = timedelta(minutes=10)
"""What was made within it no earlier version has recorded: a new order pays for no former id. Nor
was it open when its shop joined, so any of its changes makes it: creations are lost."""


_OLD = timedelta(days=7)
"""What was made before it is no news to its customer: somebody imports orders."""


class Made(NamedTuple):
    """What an order becomes.

    Attributes:
        event: for the recorder.
        message_id: of its message.
        note: why it may be that nothing is recorded; None where it is.
    """

    event: Event
    message_id: UUID
    note: Note | None = None


def order_id(platform: Platform, account_id: UUID, said: Said, *, is_test: bool = False) -> UUID:
    """The id of an order here; of a test order where a test secret signed it."""
    return _id(platform, account_id, said.key, is_test)


def _id(platform: Platform, account_id: UUID, key: str, is_test: bool) -> UUID:
    return derived_id("test order" if is_test else "order", account_id, platform.name, key)


def event_of(
    platform: Platform,
    id_: UUID,
    topic: Topic,
    said: Said,
    account_id: UUID,
    now: datetime,
    *,
    is_test: bool = False,
) -> Made | Note:
    """What an order becomes, or why it becomes nothing.

    Args:
        platform: whose.
        id_: the order's id here.
        topic: what the delivery is about.
        said: what the order says.
        account_id: whose the shop is.
        now: the time.
        is_test: whether a test secret signed it.
    """
    is_fresh = said.is_untouched and said.at is not None and now - said.at < _FRESH
    is_known = is_fresh and not said.spelled_key
    former = UNSET if is_known else _former(platform, said, account_id, is_test)
    is_new = topic == "new" or _is_young(said, now)
    # Where another order may have its id, what creates it says which of them it is.
    if topic == "new" or (is_new and not said.is_unique):
        made: Made | Note = _new(id_, said, account_id, former, now)
    else:
        made = _changed(id_, said, account_id, former, is_new=is_new)
    if not is_test or not isinstance(made, Made):
        return made
    # A test order may be cleared and made again. Its creation is known by the id it is recorded by.
    message_id = made.message_id if made.event.TYPE in CREATED else new_id()
    return made._replace(event=in_test(made.event), message_id=message_id)


def _is_young(said: Said, now: datetime) -> bool:
    """Whether a change may stand for the order's creation, which may be lost, and says no more."""
    made_at = moment(said.made) if said.is_placed and said.status is None and said.email else None
    return made_at is not None and abs(now - made_at) < _FRESH


def _new(id_: UUID, said: Said, account_id: UUID, former: Former, now: datetime) -> Made | Note:
    made_at = moment(said.made)
    if made_at is not None and now - made_at > _OLD:
        return "old_order"
    if not said.is_placed:
        waited: Event = OrderNotPlaced(
            order_id=id_, account_id=account_id, order_number=said.number
        )
        return Made(waited, derived_id(OrderNotPlaced.TYPE, id_), "not_placed")
    if said.email:
        created = _order(OrderCreated, id_, said, account_id, former=former)
        return Made(created, _creation_id(id_, said))
    waited = OrderUnaddressed(order_id=id_, account_id=account_id, order_number=said.number)
    return Made(waited, derived_id(OrderUnaddressed.TYPE, id_), "no_email_address")


def _creation_id(id_: UUID, said: Said) -> UUID:
    """The id of a creation's message: the order's, where no other order can have that."""
    if said.is_unique or not said.made:
        return id_
    return derived_id(OrderCreated.TYPE, id_, said.made)


def _changed(
    id_: UUID, said: Said, account_id: UUID, former: Former, *, is_new: bool
) -> Made | Note:
    if said.status is None and not said.is_placed:
        return "no_change"
    made_at = moment(said.made) or UNSET
    if said.status is TrackingStatus.CANCELLED:
        event: Event = OrderCancelled(
            order_id=id_,
            account_id=account_id,
            order_number=said.number,
            reason=said.reason,
            former=former,
        )
        return Made(event, derived_id(event.TYPE, said.at, id_, said.reason))
    # Without a note: the same state with one would be told anew at each change of the order.
    moved = said.status is not None
    names = (said.carrier, said.tracking_number, said.tracking_url) if moved else ()
    if not said.email:
        event = OrderUnaddressed(
            order_id=id_,
            account_id=account_id,
            order_number=said.number,
            is_change=True,
            tracking_status=said.status or UNSET,
            former=former,
            made_at=made_at,
            **(_parcel(said) if moved else {}),
        )
        # One that has not moved is told to its business, and that once.
        parts = (said.at, id_, said.status, *names) if moved else (id_, "change")
        return Made(event, derived_id(event.TYPE, *parts), "no_email_address")
    more = {"former": former, "has_moved": moved, "made_at": made_at, "is_new": is_new}
    event = _order(OrderPlaced, id_, said, account_id, **more)
    message_id = derived_id(event.TYPE, said.at, id_, said.status, *names)
    return Made(event, message_id, None if moved or is_new else "no_change")


def _parcel(said: Said) -> dict[str, Any]:
    return {
        "carrier": said.carrier or UNSET,
        "tracking_number": said.tracking_number or UNSET,
        "tracking_url": said.tracking_url or UNSET,
    }


def _former(platform: Platform, said: Said, account_id: UUID, is_test: bool) -> Former:
    made_at = moment(said.made) if said.former_key else None
    if made_at is None:
        return UNSET
    id_ = _id(platform, account_id, said.former_key, is_test)
    if not said.spelled_key:
        return FormerId(order_id=id_, made_at=made_at)
    spelled = _id(platform, account_id, said.spelled_key, is_test)
    return FormerId(order_id=id_, made_at=made_at, spelled_id=spelled)


def _order(type_: type[Order], id_: UUID, said: Said, account_id: UUID, **more: Any) -> Order:
    return type_(
        order_id=id_,
        account_id=account_id,
        customer_details=CustomerDetails(name=said.name, email=said.email, phone=said.phone),
        item_summary=said.items,
        address=said.address,
        tracking_status=said.status or TrackingStatus.PENDING,
        order_number=said.number,
        # By it the orders of shops are known, whose ids are not derived from their numbers.
        metadata={"shop": said.shop},
        **_parcel(said),
        **more,
    )
