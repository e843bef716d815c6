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

from services.ingress.webhook.event_bodies import BODIES, DATA
from shared.bus.contract.events import OrderCreated
from shared.bus.contract.message import Message, message_for
from shared.ids import derived_id

__all__ = ["BODIES", "BodyError", "read"]

SOURCE = "services.ingress"
EPOCH = datetime.fromtimestamp(0, UTC)


class BodyError(Exception):
    """The body does not fit; the message says where."""


class _Envelope(msgspec.Struct):
    """What says which event a body is."""

    type: str | None = None
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    # Not `Raw | None`: msgspec reads that as None alone.
    data: msgspec.Raw = msgspec.Raw()


_envelope = msgspec.json.Decoder(_Envelope)
_decoders = {type_: msgspec.json.Decoder(data) for type_, data in DATA.items()}
_new_order = _decoders[OrderCreated.TYPE]


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
            if envelope.timestamp is not None:
                if envelope.timestamp < EPOCH:
                    raise BodyError("The timestamp lies before 1970.")
                # A stamp from the future would win against every later update. In UTC, since
                # PostgreSQL takes no offset beyond 15:59.
                time = min(envelope.timestamp, now).astimezone(UTC)
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
