"""Records spans and exports them by OTLP over HTTP. Imported only if tracing is enabled.

Names and attributes follow OpenTelemetry's semantic conventions, 1.3x. Spans of SQL statements are
made by SQLAlchemy's events, because OpenTelemetry's instrumentation refuses SQLAlchemy 2.1.
"""

import threading
from collections.abc import Sequence
from contextvars import Token
from typing import Any

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import Engine, event
from sqlalchemy.engine import Connection, ExceptionContext

from shared.telemetry.tracing import Kind, Span

_propagator = TraceContextTextMapPropagator()
_SPAN = "fellow_span"  # key in `Connection.info` of the current statement's span


class RecordedSpan(Span):
    """An OpenTelemetry span; or, for `under`, only a context."""

    def __init__(self, span: trace.Span, *, is_ours: bool = True) -> None:
        self._span = span
        self._is_ours = is_ours
        self._token: Token[Context] | None = None
        self.traceparent = _traceparent(span)

    def __enter__(self) -> Span:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._token is not None:
            context.detach(self._token)
        if self._is_ours:
            self.end(error)

    def rename(self, name: str) -> None:
        """Change the name."""
        self._span.update_name(name)

    def set(self, name: str, value: str | int) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, value)

    def link(self, other: Span) -> None:
        """Link a span of another trace."""
        if isinstance(other, RecordedSpan):
            self._span.add_link(other._span.get_span_context())

    def fail(self, error: BaseException) -> None:
        """Mark the span as failed."""
        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self, error: BaseException | None = None) -> None:
        """End the span."""
        if error is not None:
            self.fail(error)
        self._span.end()


class OpenTelemetry:
    """The tracer of this process.

    Args:
        endpoint: of a collector, such as `http://collector:4318`, without `/v1/traces`.
        service: name of the service in every span.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service}),
            # Otherwise exit waits half a minute for an unreachable collector.
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("order-fellow")
        event.listen(Engine, "before_cursor_execute", self._statement_begins)
        event.listen(Engine, "after_cursor_execute", _statement_ends)
        event.listen(Engine, "handle_error", _statement_fails)

    def span(self, name: str, kind: Kind, parent: str | None) -> Span:
        """See `tracing.span`."""
        kind_ = SpanKind[kind.upper()]
        return RecordedSpan(self._tracer.start_span(name, context=_context(parent), kind=kind_))

    def under(self, parent: str | None) -> Span:
        """See `tracing.under`."""
        return RecordedSpan(trace.get_current_span(_context(parent)), is_ours=False)

    def current(self) -> str | None:
        """See `tracing.current`."""
        return _traceparent(trace.get_current_span())

    def flush(self, seconds: float) -> None:
        """See `tracing.flush`."""
        # force_flush does not keep its timeout: opentelemetry-python, issue 4568.
        flushing = threading.Thread(target=self._provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(seconds)

    def _statement_begins(self, connection: Connection, _: Any, statement: str, *__: Any) -> None:
        # Otherwise each statement outside of a trace, such as a poll, would be a trace.
        if not trace.get_current_span().get_span_context().is_valid:
            return
        words = statement.split()
        operation = _operation(words)
        attributes = {
            "db.system.name": "postgresql",
            "db.operation.name": operation,
            # Without parameters, which contain personal data.
            "db.query.text": " ".join(words),
        }
        connection.info[_SPAN] = self._tracer.start_span(
            operation, kind=SpanKind.CLIENT, attributes=attributes
        )


def _operation(words: Sequence[str]) -> str:
    """Return the first keyword of a statement, or after WITH the first that writes."""
    if words[0].upper() != "WITH":
        return words[0].upper()
    verbs = (word.lstrip("(") for word in words)
    return next((verb for verb in verbs if verb in ("INSERT", "UPDATE", "DELETE")), "SELECT")


def _statement_ends(connection: Connection, *_: Any) -> None:
    span: trace.Span | None = connection.info.pop(_SPAN, None)
    if span is not None:
        span.end()


def _statement_fails(failure: ExceptionContext) -> None:
    span = failure.connection.info.pop(_SPAN, None) if failure.connection is not None else None
    if span is not None:
        RecordedSpan(span).end(failure.original_exception)


def _context(parent: str | None) -> Context | None:
    return None if parent is None else _propagator.extract({"traceparent": parent}, Context())


def _traceparent(span: trace.Span) -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span))
    return carrier.get("traceparent")
