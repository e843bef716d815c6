"""Publishing and consuming with spans. These classes are in use only while tracing is on.

A message goes on in the trace of whoever published it, whatever batch it shares: it has a span of
its own there. The batch, with its statements, belongs to the trace of its first message and is
linked with the spans of the others (OpenTelemetry, "Semantic Conventions for Messaging Spans").
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from msgspec import structs

from shared.bus.consume.batch import Batches, Failures
from shared.bus.contract.message import Message, Received
from shared.bus.publish.confirms import PublishError
from shared.bus.publish.publisher import Publisher
from shared.telemetry import tracing


def publisher_class() -> type[Publisher]:
    """The publisher to use in this process."""
    return TracedPublisher if tracing.is_on() else Publisher


def batches_class() -> type[Batches]:
    """The batches to use in this process."""
    return TracedBatches if tracing.is_on() else Batches


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


class TracedBatches(Batches):
    """A span for each message, and one for each try of their batch."""

    def _once(self, messages: Sequence[Received[Any]]) -> Failures:
        spans = [
            tracing.span(f"process {message.type}", kind="consumer", parent=message.traceparent)
            for message in messages
        ]
        for message, span in zip(messages, spans, strict=True):
            span.set("messaging.system", "rabbitmq")
            span.set("messaging.message.id", str(message.id))
        failures: Failures = {}
        ended: BaseException | None = None
        try:
            with tracing.span(f"batch {self._consumer}", parent=spans[0].traceparent) as batch:
                batch.set("messaging.batch.message_count", len(messages))
                for span in spans[1:]:
                    batch.link(span)
                    span.link(batch)
                failures = super()._once(
                    [
                        replace(message, traceparent=span.traceparent)
                        for message, span in zip(messages, spans, strict=True)
                    ]
                )
        except BaseException as error:
            ended = error
            raise
        finally:
            for message, span in zip(messages, spans, strict=True):
                span.end(ended or failures.get(message.id))
        return failures
