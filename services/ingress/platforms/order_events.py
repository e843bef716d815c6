"""Turns a platform's order into an event, with ids that every copy of the delivery has too.

An order's id is derived from the account, the platform and the platform's key of the order; the
message of its creation has the same id. The id of a change is derived from its content and time. So
a delivery that is sent twice, or that several webhooks send for one change, counts once, whatever
its topic.

The recorder waits for an order that is not placed yet or has no address: the first change that has
both creates it. A change of an order that was made within minutes creates it too, in case its
creation was lost. Each change is a separate message, since the earliest of them dates the placing
of the order.
"""

from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import UUID

from msgspec import UNSET

from services.ingress.platforms.platform import OrderContent, Platform, Topic, moment
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
    "no_change",
    "not_placed",
    "no_email_address",
    "old_order",
    "order_gone",
    "privacy_request",
    "topic_not_taken",
    "test",
    "ping",
]
"""Why nothing is recorded of a valid delivery; on the wire, and in the request log."""

SENTENCES: dict[Note, str] = {
    "no_change": "The order has no status that customers are notified of: nothing was changed, but "
    "an order that waited to be placed is recorded.",
    "not_placed": "The order is a draft, unpaid, failed or cancelled: it is recorded once it is "
    "placed.",
    "no_email_address": "The order has no email address that can be mailed: it is not recorded. "
    "Of one that was recorded with an address, its new state is.",
    "old_order": "The order was made more than a week ago, so it is treated as imported: it is not "
    "recorded, and its customer is not notified.",
    "order_gone": "The order was deleted permanently in the shop before it was sent: there is "
    "nothing to record.",
    "privacy_request": "A person's data, or its erasure, was requested. Nothing was done: write to "
    "the operator of this service, with the customer's address.",
    "topic_not_taken": "Deliveries of this topic are not recorded.",
    "test": "A test arrived, and its signature is right. Nothing was recorded.",
    "ping": "The service is available. Nothing was recorded.",
}


_FRESH = timedelta(minutes=10)
"""An order made within it cannot have been recorded by an earlier version, so it needs no former
id. It was not open when its shop joined either, so any change may create it: creations get lost."""


_CREATING = {
    True: (
        None,
        TrackingStatus.IN_TRANSIT,
        TrackingStatus.OUT_FOR_DELIVERY,
        TrackingStatus.DELIVERED,
    ),
    False: (None,),
}
"""The statuses in which a change of a young order creates it; by whether its key is unique."""


_OLD = timedelta(days=7)
"""An older order is an import, and no news to its customer."""


class OrderEvent(NamedTuple):
    """The event of a delivery.

    Attributes:
        event: for the recorder.
        message_id: of its message.
        note: why it may be that nothing is recorded; None if something is.
    """

    event: Event
    message_id: UUID
    note: Note | None = None


def order_id(
    platform: Platform, account_id: UUID, content: OrderContent, *, is_test: bool = False
) -> UUID:
    """Return our id of an order; that of a test order if a test secret signed it."""
    return _id(platform, account_id, content.key, is_test)


def _id(platform: Platform, account_id: UUID, key: str, is_test: bool) -> UUID:
    return derived_id("test order" if is_test else "order", account_id, platform.name, key)


def event_of(
    platform: Platform,
    id_: UUID,
    topic: Topic,
    content: OrderContent,
    account_id: UUID,
    now: datetime,
    *,
    is_test: bool = False,
) -> OrderEvent | Note:
    """Return the event of a platform's order, or the note why there is none.

    Args:
        platform: that sent it.
        id_: the order's id, from `order_id`.
        topic: of the delivery.
        content: the order's content.
        account_id: of the shop's owner.
        now: the time.
        is_test: whether a test secret signed it.
    """
    is_fresh = content.is_untouched and content.at is not None and now - content.at < _FRESH
    is_known = is_fresh and not content.spelled_key
    former = UNSET if is_known else _former(platform, content, account_id, is_test)
    is_new = topic == "new" or _is_young(content, now)
    # If another order may have the id, only a creation's own id tells the two apart.
    if topic == "new" or (is_new and not content.is_unique):
        # A fresh order is not old: its date need not be parsed.
        is_old = not is_fresh and _is_old(content, now)
        made: OrderEvent | Note = "old_order" if is_old else _new(id_, content, account_id, former)
    else:
        made = _changed(id_, content, account_id, former, is_new=is_new)
    if not is_test or not isinstance(made, OrderEvent):
        return made
    # A test order may be cleared and sent again, so its updates get new ids. Its creation keeps the
    # id, by which the recorder finds the order.
    message_id = made.message_id if made.event.TYPE in CREATED else new_id()
    return made._replace(event=in_test(made.event), message_id=message_id)


def _is_young(content: OrderContent, now: datetime) -> bool:
    """Return whether a change may stand for the order's creation, which may have been lost.

    With a unique key that holds for later statuses too, as a download has when it is paid. Without
    one the creation has its own message id, so such a change cannot stand for it.
    """
    if (
        not content.is_placed
        or not content.email
        or content.status not in _CREATING[content.is_unique]
    ):
        return False
    made_at = moment(content.made)
    return made_at is not None and abs(now - made_at) < _FRESH


def _is_old(content: OrderContent, now: datetime) -> bool:
    made_at = moment(content.made)
    return made_at is not None and now - made_at > _OLD


def _new(id_: UUID, content: OrderContent, account_id: UUID, former: Former) -> OrderEvent | Note:
    if not content.is_placed:
        waited: Event = OrderNotPlaced(
            order_id=id_, account_id=account_id, order_number=content.number
        )
        return OrderEvent(waited, derived_id(OrderNotPlaced.TYPE, id_), "not_placed")
    if content.email:
        created = _order(OrderCreated, id_, content, account_id, former=former)
        return OrderEvent(created, _creation_id(id_, content))
    waited = OrderUnaddressed(order_id=id_, account_id=account_id, order_number=content.number)
    return OrderEvent(waited, derived_id(OrderUnaddressed.TYPE, id_), "no_email_address")


def _creation_id(id_: UUID, content: OrderContent) -> UUID:
    """Return the message id of a creation: the order's id, if no other order can have it."""
    if content.is_unique or not content.made:
        return id_
    return derived_id(OrderCreated.TYPE, id_, content.made)


def _changed(
    id_: UUID, content: OrderContent, account_id: UUID, former: Former, *, is_new: bool
) -> OrderEvent | Note:
    if content.status is None and not content.is_placed:
        return "no_change"
    made_at = moment(content.made) or UNSET
    if content.status is TrackingStatus.CANCELLED:
        event: Event = OrderCancelled(
            order_id=id_,
            account_id=account_id,
            order_number=content.number,
            reason=content.reason,
            former=former,
            made_at=made_at,
        )
        return OrderEvent(event, derived_id(event.TYPE, content.at, id_, content.reason))
    # No note: the same status with a note would notify the customer at each change of the order.
    moved = content.status is not None
    names = (content.carrier, content.tracking_number, content.tracking_url) if moved else ()
    if not content.email:
        event = OrderUnaddressed(
            order_id=id_,
            account_id=account_id,
            order_number=content.number,
            is_change=True,
            tracking_status=content.status or UNSET,
            former=former,
            made_at=made_at,
            carrier=(moved and content.carrier) or UNSET,
            tracking_number=(moved and content.tracking_number) or UNSET,
            tracking_url=(moved and content.tracking_url) or UNSET,
        )
        # Without a status its business is notified, once: all such changes share one id.
        parts = (content.at, id_, content.status, *names) if moved else (id_, "change")
        return OrderEvent(event, derived_id(event.TYPE, *parts), "no_email_address")
    more = {"former": former, "has_moved": moved, "made_at": made_at, "is_new": is_new}
    event = _order(OrderPlaced, id_, content, account_id, **more)
    message_id = derived_id(event.TYPE, content.at, id_, content.status, *names)
    return OrderEvent(event, message_id, None if moved or is_new else "no_change")


def _former(platform: Platform, content: OrderContent, account_id: UUID, is_test: bool) -> Former:
    made_at = moment(content.made) if content.former_key else None
    if made_at is None:
        return UNSET
    id_ = _id(platform, account_id, content.former_key, is_test)
    if not content.spelled_key:
        return FormerId(order_id=id_, made_at=made_at)
    spelled = _id(platform, account_id, content.spelled_key, is_test)
    return FormerId(order_id=id_, made_at=made_at, spelled_id=spelled)


def _order(
    type_: type[Order], id_: UUID, content: OrderContent, account_id: UUID, **more: Any
) -> Order:
    return type_(
        order_id=id_,
        account_id=account_id,
        customer_details=CustomerDetails(
            name=content.name, email=content.email, phone=content.phone
        ),
        item_summary=content.items,
        address=content.address,
        tracking_status=content.status or TrackingStatus.PENDING,
        order_number=content.number,
        # Marks the orders of shops, whose ids are not derived from their numbers.
        metadata={"shop": content.shop},
        carrier=content.carrier or UNSET,
        tracking_number=content.tracking_number or UNSET,
        tracking_url=content.tracking_url or UNSET,
        **more,
    )
