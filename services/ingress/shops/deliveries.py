"""Turns a shop's authenticated delivery into a message, a note, or both. Pure.

The webhook stores the message; `POST /webhooks/test/` only shows it.
"""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from services.ingress.platforms import lenient_reading, order_events
from services.ingress.platforms.order_events import Note
from services.ingress.platforms.platform import OrderContent, OrderGoneError, Platform
from shared.bus.contract.message import Message, message_for
from shared.intake.bodies import SOURCE
from shared.validation.phrases import listed

# A topic is not signed, so nothing else may get into the request log by it.
_NOT_IN_TOPICS, _MAX_TOPIC = re.compile(r"[^a-z0-9_./-]+"), 60


class Delivery(NamedTuple):
    """The result of a delivery.

    Attributes:
        note: why nothing, or not all, is recorded; None if it is.
        order_id: our id of the order, as text; None if the order was not read.
        message: to be stored.
        number: the shop's number of the order.
        fault: the detail of the note, for the request log; at most 300 characters.
    """

    note: Note | None
    order_id: str | None = None
    message: Message | None = None
    number: str = ""
    fault: str = ""


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
    """Read a delivery.

    Args:
        platform: that sent it.
        header: returns a header of the request by its name.
        body: the raw body.
        account_id: of the shop's owner.
        now: the time.
        is_test: whether a test secret signed it.
        traceparent: the trace context, if any.

    Raises:
        InvalidValueError: the body is not an order.
    """
    named = header(platform.topic) or ""
    topic = platform.topics.get(named)
    if platform.test is not None and header(platform.test) == "true":
        return Delivery("test")
    if topic is None:
        if named in platform.privacy:
            return Delivery("privacy_request")
        return Delivery("topic_not_taken", fault=_unread(named, platform))
    try:
        order = order_of(body, platform)
    except OrderGoneError:
        return Delivery("order_gone")
    content = platform.read(order, header(platform.shop) or "")
    id_ = order_events.order_id(platform, account_id, content, is_test=is_test)
    order_id = str(id_)
    made = order_events.event_of(platform, id_, topic, content, account_id, now, is_test=is_test)
    if isinstance(made, str):
        return Delivery(made, order_id, number=content.number, fault=_unknown(content, made))
    message = message_for(
        made.event,
        source=SOURCE,
        correlation_id=order_id,
        message_id=order_id if made.message_id is id_ else made.message_id,
        # A stamp from the future would win against every later one.
        time=now if content.at is None else min(content.at, now),
        traceparent=traceparent,
    )
    # Not decoded as its consumers do: `platform.py` makes valid texts of any, which tests prove.
    return Delivery(made.note, order_id, message, content.number, _unknown(content, made.note))


def _unknown(content: OrderContent, note: Note | None) -> str:
    if note != "no_change" or not content.unknown_status:
        return ""
    return f"The status `{content.unknown_status}` is not in the table of states."


def _unread(topic: str, platform: Platform) -> str:
    named = _NOT_IN_TOPICS.sub("", topic.lower())[:_MAX_TOPIC]
    subject = f"`{named}`" if named else "This topic"
    topics = listed([f"`{taken}`" for taken in platform.topics])
    return f"{subject} is not read here. Make webhooks for {topics}."


def order_of(body: bytes, platform: Platform) -> Any:
    """Return the order of a body, as a `platform.order`.

    Args:
        body: the raw body.
        platform: that sent it.

    Raises:
        InvalidValueError: it is not an order.
        OrderGoneError: it reports that the order does not exist.
    """
    try:
        return _decoder(platform.order).decode(body)
    except (ValueError, RecursionError, OverflowError):
        return lenient_reading.read(body, platform)


@cache
def _decoder(type_: type[msgspec.Struct]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)
