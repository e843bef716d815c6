"""Copy a message, for a delay queue, a dead letter queue, or its own queue."""

from collections.abc import Mapping
from typing import Any

from amqp import Message as AmqpMessage
from amqp.serialization import dumps

from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.headers import (
    HAPPENED_HEADER,
    KEY_HEADER,
    REPLAY_HEADER,
    UNVOUCHED_HEADER,
    USER_HEADER,
)

_KEPT = ("content_type", "content_encoding", "correlation_id", "message_id", "timestamp", "type")
# Headers of the broker that a copy must not have. With the counters it would look redelivered; with
# x-death the broker would detect a cycle and leave it in the delay queue; with CC and BCC a sender
# would reach further queues by our rights.
_BROKERS = frozenset(
    {
        "x-delivery-count",
        "x-acquired-count",
        "x-death",
        *(
            f"x-{which}-death-{what}"
            for which in ("first", "last")
            for what in ("exchange", "queue", "reason")
        ),
        "CC",
        "BCC",
    }
)
# Trusted on a copy, since only services can publish one; a sender's own are dropped.
_BELIEVED = frozenset({REPLAY_HEADER, HAPPENED_HEADER, KEY_HEADER, USER_HEADER})
MAX_HEADERS_BYTES = 65_536
"""The most bytes of headers: all properties of a message must fit into one frame."""


def again(
    incoming: RawDelivery,
    user: str | None,
    publisher: str,
    headers: Mapping[str, Any] | None = None,
) -> AmqpMessage:
    """Return a copy of a message with its history of attempts.

    Args:
        incoming: the message.
        user: the broker user that published it, as verified by the broker.
        publisher: the broker user that publishes the copy, which the broker verifies as well: what
            the copy says of `user` is believed of services only.
        headers: additional ones; they replace those of the message.
    """
    own = incoming.taken_as | dict(headers or {})
    if user:
        own[USER_HEADER] = user
    if incoming.unvouched:
        own[UNVOUCHED_HEADER] = True
    properties = {name: incoming.properties[name] for name in _KEPT if name in incoming.properties}
    if incoming.misnamed:
        # The exchange and key of the copy no longer show it.
        properties.pop("type", None)
    properties.setdefault("message_id", str(incoming.message_id))
    return AmqpMessage(
        incoming.body,
        application_headers=_carried(incoming, without=own) | own,
        delivery_mode=2,
        user_id=publisher,
        **properties,
    )


def _carried(incoming: RawDelivery, without: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that the copy keeps, as many as fit."""
    found: dict[str, Any] = {}
    left = MAX_HEADERS_BYTES
    for name, value in incoming.headers.items():
        if name in _BROKERS or name in _BELIEVED or name in without:
            continue
        size = _size(name, value)
        if size is not None and size <= left:
            left -= size
            found[name] = value
    return found


def _size(name: str, value: Any) -> int | None:
    """Return the encoded size of a header in bytes; None if it cannot be encoded."""
    try:
        return len(dumps("F", [{name: value}]))
    except Exception:  # noqa: BLE001 - numbers out of range, nesting without end
        return None
