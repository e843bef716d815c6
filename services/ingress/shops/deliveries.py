"""What a shop's delivery that is rightly signed comes to: a message, a note, or both. Pure.

The webhook makes the message safe; `POST /webhooks/test/` only tells of it.
"""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from services.ingress.platforms import becoming, lenient_reading
from services.ingress.platforms.becoming import Note
from services.ingress.platforms.platform import Platform
from shared.bus.contract.events import decode
from shared.bus.contract.message import Message, message_for
from shared.intake.bodies import SOURCE


class UnfitError(ValueError):
    """Whoever consumes it would refuse what it became; the sentence says why.

    Args:
        sentence: for the sender.
        order_id: the order's id here.
    """

    def __init__(self, sentence: str, order_id: UUID) -> None:
        super().__init__(sentence)
        self.order_id = order_id


class Delivery(NamedTuple):
    """What came of one.

    Attributes:
        note: why nothing, or not all, is recorded; None where it is.
        order_id: the order's id here, where it was looked at.
        message: what is to be made safe.
        number: what its shop calls the order.
    """

    note: Note | None
    order_id: UUID | None = None
    message: Message | None = None
    number: str = ""


def read(
    platform: Platform,
    header: Callable[[str], str | None],
    body: bytes,
    account_id: UUID,
    now: datetime,
    *,
    is_test: bool = False,
    traceparent: str | None = None,
) -> Delivery:
    """Read one.

    Args:
        platform: whose.
        header: gives one of the request's.
        body: the raw body.
        account_id: whose the shop is.
        now: the time.
        is_test: whether a test secret signed it.
        traceparent: the trace context, where there is one.

    Raises:
        InvalidValueError: the body is no order.
        UnfitError: see there.
    """
    topic = platform.topics.get(header(platform.topic) or "")
    if platform.test is not None and header(platform.test) == "true":
        return Delivery("test")
    if topic is None:
        return Delivery("topic_not_taken")
    said = platform.read(order_of(body, platform), header(platform.shop) or "")
    id_ = becoming.order_id(platform, account_id, said, is_test=is_test)
    made = becoming.event_of(platform, id_, topic, said, account_id, now, is_test=is_test)
    if isinstance(made, str):
        return Delivery(made, id_, number=said.number)
    message = message_for(
        made.event,
        source=SOURCE,
        correlation_id=id_,
        message_id=made.message_id,
        # A stamp from the future would win against every later one.
        time=now if said.at is None else min(said.at, now),
        traceparent=traceparent,
    )
    try:
        decode(message.type, message.body)
    except msgspec.DecodeError as error:
        # Whoever consumes it would refuse it, when its sender has long had a 201.
        raise UnfitError(f"The order cannot be recorded: {error}", id_) from None
    return Delivery(made.note, id_, message, said.number)


def order_of(body: bytes, platform: Platform) -> Any:
    """What a body says, as far as it is read.

    Args:
        body: the raw body.
        platform: whose.

    Raises:
        InvalidValueError: it is no order.
    """
    try:
        return _decoder(platform.order).decode(body)
    except (ValueError, RecursionError, OverflowError):
        return lenient_reading.read(body, platform)


@cache
def _decoder(type_: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)
