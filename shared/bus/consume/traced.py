"""Consuming with spans. This class is in use only while tracing is on.

A message goes on in the trace of whoever published it, whatever batch it shares: it has a span of
its own there. The batch, with its statements, belongs to the trace of its first message and is
linked with the spans of the others (OpenTelemetry, "Semantic Conventions for Messaging Spans").
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from shared.bus.consume.batch import Batches, Failures
from shared.bus.contract.message import Received
from shared.telemetry import tracing


def batches_class() -> type[Batches]:
    """The batches to use in this process."""
    return TracedBatches if tracing.is_on() else Batches


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
