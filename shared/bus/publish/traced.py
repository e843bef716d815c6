"""A publisher that records spans, used while tracing is on."""

import asyncio

from msgspec import structs

from shared.bus.contract.message import Message
from shared.bus.publish.confirms import PublishError
from shared.bus.publish.publisher import Publisher
from shared.telemetry import tracing


def publisher_class() -> type[Publisher]:
    """Return the publisher class of this process."""
    return TracedPublisher if tracing.is_on() else Publisher


class TracedPublisher(Publisher):
    """A span for each message, from the publish to its confirm."""

    def send(self, message: Message) -> "asyncio.Future[None]":
        """See `Publisher.send`."""
        span = tracing.span(f"publish {message.type}", kind="producer", parent=message.traceparent)
        span.set("messaging.system", "rabbitmq")
        span.set("messaging.destination.name", message.exchange)
        span.set("messaging.message.id", message.message_id)
        try:
            confirm = super().send(structs.replace(message, traceparent=span.traceparent))
        except (PublishError, ValueError) as error:
            span.end(error)
            raise
        confirm.add_done_callback(
            lambda done: span.end(None if done.cancelled() else done.exception())
        )
        return confirm
