"""Copies of messages to be handled anew: under the same id, without their failure history."""

from collections.abc import Mapping
from typing import Any

from amqp import Message as AmqpMessage

from shared.bus.contract.delivery import RawDelivery
from shared.bus.contract.headers import ACTING_HEADER, USER_HEADER

_KEPT = ("content_type", "correlation_id", "message_id", "timestamp", "type")


def copy(
    incoming: RawDelivery,
    publisher: str,
    *,
    user: str | None = None,
    person: str = "",
    body: bytes | None = None,
    properties: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    taken_as: Mapping[str, Any] | None = None,
) -> AmqpMessage:
    """Return a copy without attempts and reasons, which is handled as the message would be.

    Args:
        incoming: the message.
        publisher: the broker user that publishes the copy.
        user: the message's publisher, as the broker verified.
        person: the console user that it was published for; empty for none.
        body: a new body; None for the original one.
        properties: AMQP properties to change.
        extra: headers to add.
        taken_as: the headers that say how it is handled; None for the message's own.
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
    if body is None and incoming.misnamed:
        # The copy is vouched for, which must not extend to a type that its sender may not use.
        kept.pop("type", None)
        # From an id that is no UUID a consumer derives one, with the sender if it believes that.
    kept |= {"message_id": str(incoming.message_id)} | dict(properties or {})
    return AmqpMessage(
        incoming.body if body is None else body,
        application_headers=headers,
        delivery_mode=2,
        user_id=publisher,
        **kept,
    )
