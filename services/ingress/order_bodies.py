"""What a sender may write in the body of an order webhook, and the event that it becomes.

Flat, as `order.created`; with a `type` that says which event it is; or `{type, timestamp, data}` as
Standard Webhooks shapes it.

With a key of the sender's (`Idempotency-Key` or `webhook-id`) ids are derived, without a look-up:
an order's from the account and the key, the same at each try; a message's from the raw body too. So
the recorder's inbox knows an exact copy, and another body under the same key reaches the recorder,
which finds the order id taken and keeps it as a conflict.
"""

import hashlib
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec

from shared.bus.events import (
    CustomerDetails,
    Event,
    OptionalText,
    OrderCancelled,
    OrderCreated,
    OrderStatusChanged,
    Text,
    TrackingStatus,
)
from shared.bus.message import Message, message_for
from shared.ids import derived_id, new_id

SOURCE = "services.ingress"


class BodyError(Exception):
    """The body does not fit; the message says where."""


class NewOrder(msgspec.Struct, kw_only=True):
    """`order.created`, the default: an order."""

    customer_details: CustomerDetails
    item_summary: Text
    address: Text
    tracking_status: TrackingStatus = TrackingStatus.PENDING

    def event(self, account_id: UUID, key: str | None) -> tuple[UUID, Event]:
        """The order's id, new or of its key, and the event."""
        order_id = new_id() if key is None else derived_id("order", account_id, key)
        return order_id, OrderCreated(
            order_id=order_id,
            account_id=account_id,
            customer_details=self.customer_details,
            item_summary=self.item_summary,
            address=self.address,
            tracking_status=self.tracking_status,
        )


class StatusChange(msgspec.Struct, kw_only=True):
    """`order.status_changed`: where an order is now."""

    order_id: UUID
    tracking_status: TrackingStatus
    note: OptionalText = ""

    def event(self, account_id: UUID, _: str | None) -> tuple[UUID, Event]:
        """The order's id, and the event."""
        return self.order_id, OrderStatusChanged(
            order_id=self.order_id,
            account_id=account_id,
            tracking_status=self.tracking_status,
            note=self.note,
        )


class Cancellation(msgspec.Struct, kw_only=True):
    """`order.cancelled`: an order will not come."""

    order_id: UUID
    reason: OptionalText = ""

    def event(self, account_id: UUID, _: str | None) -> tuple[UUID, Event]:
        """The order's id, and the event."""
        return self.order_id, OrderCancelled(
            order_id=self.order_id, account_id=account_id, reason=self.reason
        )


class _Envelope(msgspec.Struct):
    """What says which event a body is."""

    type: str | None = None
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    # Not `Raw | None`: msgspec reads that as None alone.
    data: msgspec.Raw = msgspec.Raw()


BODIES: dict[str, type[NewOrder | StatusChange | Cancellation]] = {
    OrderCreated.TYPE: NewOrder,
    OrderStatusChanged.TYPE: StatusChange,
    OrderCancelled.TYPE: Cancellation,
}
_envelope = msgspec.json.Decoder(_Envelope)
_new_order = msgspec.json.Decoder(NewOrder)
_decoders = {type_: msgspec.json.Decoder(body) for type_, body in BODIES.items()}


def read(
    body: bytes, account_id: UUID, traceparent: str | None, key: str | None = None
) -> tuple[UUID, Message]:
    """The order's id and the message that a body stands for.

    Args:
        body: the raw body.
        account_id: who signed it.
        traceparent: the W3C trace context of the request, where there is one.
        key: what makes the request idempotent, where there is one.

    Raises:
        BodyError: see there.
    """
    now = datetime.now(UTC)
    time = now
    try:
        if b'"type"' in body:
            envelope = _envelope.decode(body)
            # A stamp from the future would win against every later update.
            time = min(envelope.timestamp or now, now)
            decoder = _decoders.get(envelope.type or OrderCreated.TYPE)
            if decoder is None:
                known = ", ".join(BODIES)
                raise BodyError(f"Unknown type {envelope.type!r:.60}. It may be {known}.")
            read = decoder.decode(bytes(envelope.data) or body)
        else:
            read = _new_order.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise BodyError(f"The body is not as it should be: {error}") from None
    order_id, event = read.event(account_id, key)
    return order_id, message_for(
        event,
        source=SOURCE,
        correlation_id=order_id,
        message_id=_message_id(event.TYPE, account_id, order_id, body, key),
        time=time,
        traceparent=traceparent,
    )


def _message_id(
    type_: str, account_id: UUID, order_id: UUID, body: bytes, key: str | None
) -> UUID | None:
    if key is not None:
        digest = hashlib.sha256(body).hexdigest()
        return derived_id(type_, account_id, key, digest)
    # An order is created once, so its creation needs no id of its own.
    return order_id if type_ == OrderCreated.TYPE else None
