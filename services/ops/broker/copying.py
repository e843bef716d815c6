"""A copy of a message, to be handled anew: the same id, without why and how often it failed."""

from collections.abc import Mapping
from typing import Any

from amqp import Message as AmqpMessage

from shared.bus.contract.delivery import Incoming
from shared.bus.contract.headers import ACTING_HEADER, USER_HEADER

_KEPT = ("content_type", "correlation_id", "message_id", "timestamp", "type")


def copy(
    incoming: Incoming,
    publisher: str,
    *,
    user: str | None = None,
    person: str = "",
    body: bytes | None = None,
    properties: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    taken_as: Mapping[str, Any] | None = None,
) -> AmqpMessage:
    """The copy. It has no attempts behind it and no reasons, and is taken as the message would be.

    Args:
        incoming: the message.
        publisher: who publishes the copy.
        user: who published it, as the broker verified.
        person: for whom, where that was the ops console.
        body: another body.
        properties: other AMQP properties.
        extra: more headers.
        taken_as: how it is to be taken; as the message when not given.
    """
    headers = {
        name: value
        for name, value in incoming.headers.items()
        if name.startswith("ce-") or name == "traceparent"
    }
    headers |= incoming.taken_as if taken_as is None else taken_as
    headers |= extra or {}
    if user:
        headers[USER_HEADER] = user
    if person:
        headers[ACTING_HEADER] = person
    kept = {name: incoming.properties[name] for name in _KEPT if name in incoming.properties}
    # What is no UUID is derived by who sent it, which of a copy not everybody believes.
    kept |= {"message_id": str(incoming.message_id)} | dict(properties or {})
    return AmqpMessage(
        incoming.body if body is None else body,
        application_headers=headers,
        delivery_mode=2,
        user_id=publisher,
        **kept,
    )
