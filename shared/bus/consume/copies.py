"""The same message again: what a copy keeps of it, for the retry ladder or for its own queue."""

from collections.abc import Mapping
from typing import Any

from amqp import Message as AmqpMessage
from amqp.serialization import dumps

from shared.bus.contract.delivery import Incoming
from shared.bus.contract.headers import (
    HAPPENED_HEADER,
    KEY_HEADER,
    REPLAY_HEADER,
    USER_HEADER,
)

_KEPT = ("content_type", "content_encoding", "correlation_id", "message_id", "timestamp", "type")
# The broker's own: with its counters the copy would look redelivered; with its notes on deaths it
# would see a cycle and leave the copy on the ladder for ever; and by CC and BCC a stranger would
# reach, with our rights, queues that are none of his business.
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
# On a copy they are believed, as only services can send one; what a stranger wrote is not.
_BELIEVED = frozenset({REPLAY_HEADER, HAPPENED_HEADER, KEY_HEADER, USER_HEADER})
MAX_HEADERS_BYTES = 65_536
"""What headers may take of a frame, in which all of a message's properties must fit."""


def again(
    incoming: Incoming,
    user: str | None,
    publisher: str,
    headers: Mapping[str, Any] | None = None,
) -> AmqpMessage:
    """A copy of a message as it is, what it has behind it included.

    Args:
        incoming: the message.
        user: who published it, as the broker verified.
        publisher: who publishes the copy; the broker verifies that too, and `user` is believed of
            them alone.
        headers: more of them, or others.
    """
    own = incoming.taken_as | dict(headers or {})
    if user:
        own[USER_HEADER] = user
    properties = {name: incoming.properties[name] for name in _KEPT if name in incoming.properties}
    if incoming.misnamed:
        # A copy's exchange and key say nothing of it any more.
        del properties["type"]
    properties.setdefault("message_id", str(incoming.message_id))
    return AmqpMessage(
        incoming.body,
        application_headers=_carried(incoming, without=own) | own,
        delivery_mode=2,
        user_id=publisher,
        **properties,
    )


def _carried(incoming: Incoming, without: Mapping[str, Any]) -> dict[str, Any]:
    """The headers of a message that its copy keeps."""
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
    """How many bytes a header takes; None for what can be read and not be written."""
    try:
        return len(dumps("F", [{name: value}]))
    except Exception:  # noqa: BLE001 - numbers out of range, nesting without end
        return None
