"""What an order of a platform becomes here: events, under ids that any copy of it has too.

An order's id is derived from the account, the platform and what names the order there; its
creation has that id as its own. A change is known by what it says and since when. So a delivery
that comes twice, or that several webhooks make of one change, counts once, whatever they call it.
"""

from typing import Literal
from uuid import UUID

from msgspec import UNSET

from services.ingress.platforms.platform import Platform, Said, Topic
from shared.bus.contract.events import (
    CustomerDetails,
    Event,
    OrderCancelled,
    OrderCreated,
    OrderStatusChanged,
    OrderUnaddressed,
    TrackingStatus,
    encode,
    in_test,
)
from shared.ids import derived_id

Note = Literal["no_change", "no_email_address", "topic_not_taken", "test", "ping"]
"""Why nothing is recorded of a delivery that is in order, as the request log has it."""

SENTENCES: dict[Note, str] = {
    "no_change": "The order has no state that is recorded here: nothing was changed.",
    "no_email_address": "The order has no email address that can be mailed: it is not recorded.",
    "topic_not_taken": "Deliveries about this are not recorded.",
    "test": "A test arrived, and its signature is right. Nothing was recorded.",
    "ping": "We are here. Nothing was recorded.",
}


def order_id(platform: Platform, account_id: UUID, said: Said, *, is_test: bool = False) -> UUID:
    """The id of an order here; of a test order where a test secret signed it."""
    what = "test order" if is_test else "order"
    return derived_id(what, account_id, platform.name, said.key)


def event_of(
    id_: UUID, topic: Topic, said: Said, account_id: UUID, *, is_test: bool = False
) -> tuple[Event, UUID] | Note:
    """The event that an order becomes and its message's id, or why it becomes none.

    Args:
        id_: the order's id here.
        topic: what the delivery is about.
        said: what the order says.
        account_id: whose the shop is.
        is_test: whether a test secret signed it.
    """
    if not said.email and (is_test or topic != "new"):
        return "no_email_address"
    if topic == "new":
        created, message_id = _new(id_, said, account_id)
        return in_test(created) if is_test else created, message_id
    if said.status is None:
        return "no_change"
    event: Event
    if said.status is TrackingStatus.CANCELLED:
        event = OrderCancelled(order_id=id_, account_id=account_id, reason=said.reason)
    else:
        # Without a note: the same state with one would be told anew at each change of the order.
        event = OrderStatusChanged(
            order_id=id_,
            account_id=account_id,
            tracking_status=said.status,
            carrier=said.carrier or UNSET,
            tracking_number=said.tracking_number or UNSET,
            tracking_url=said.tracking_url or UNSET,
        )
    message_id = derived_id(event.TYPE, said.at, encode(event).decode())
    return in_test(event) if is_test else event, message_id


def _new(id_: UUID, said: Said, account_id: UUID) -> tuple[Event, UUID]:
    if not said.email:
        unaddressed = OrderUnaddressed(
            order_id=id_, account_id=account_id, order_number=said.number
        )
        return unaddressed, derived_id(OrderUnaddressed.TYPE, id_)
    details = CustomerDetails(name=said.name, email=said.email, phone=said.phone)
    created = OrderCreated(
        order_id=id_,
        account_id=account_id,
        customer_details=details,
        item_summary=said.items,
        address=said.address,
        tracking_status=said.status or TrackingStatus.PENDING,
        order_number=said.number,
        metadata={"shop": said.shop} if said.shop else UNSET,
        carrier=said.carrier or UNSET,
        tracking_number=said.tracking_number or UNSET,
        tracking_url=said.tracking_url or UNSET,
    )
    return created, id_
