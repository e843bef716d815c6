"""Tracing by OpenTelemetry, enabled by `OTEL_EXPORTER_OTLP_ENDPOINT`.

When disabled, all spans are one empty object, OpenTelemetry is not imported, and a call takes about
0.1 µs. The standard's other variables apply as well, such as `OTEL_TRACES_SAMPLER` and
`OTEL_EXPORTER_OTLP_HEADERS`.

A trace is propagated as a `traceparent` (W3C Trace Context, 3.2) in headers of requests and
messages.
"""

from typing import Literal, Protocol

from shared.config.environment import ConfigurationError
from shared.config.settings import Settings

Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Span:
    """A span that is not recorded, and the interface of recorded ones.

    As a context manager it is the parent of spans begun inside, and ends with the block.
    """

    traceparent: str | None = None
    """Identifies this span as a parent in other processes."""

    def __enter__(self) -> "Span":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        return None

    def rename(self, name: str) -> None:
        """Change the name, when it becomes known after the start."""

    def set(self, name: str, value: str | int) -> None:
        """Set an attribute. Never an address, a body or a secret."""

    def link(self, other: "Span") -> None:
        """Link a related span of another trace."""

    def fail(self, error: BaseException) -> None:
        """Mark the span as failed, by the error's class only: its message may contain data."""

    def end(self, error: BaseException | None = None) -> None:
        """End the span, if it is not used as a context manager."""


class Tracer(Protocol):
    """Creates recorded spans; see the functions of the same names."""

    def span(self, name: str, kind: Kind, parent: str | None) -> Span: ...  # noqa: D102

    def under(self, parent: str | None) -> Span: ...  # noqa: D102

    def current(self) -> str | None: ...  # noqa: D102

    def flush(self, seconds: float) -> None: ...  # noqa: D102


_OFF = Span()
_tracer: Tracer | None = None


def configure(config: Settings, service: str) -> None:
    """Start tracing in this process if it is enabled. Call it after a fork, not before.

    Args:
        config: provides `otel_exporter_otlp_endpoint`.
        service: name of the service in every span.

    Raises:
        ConfigurationError: tracing is enabled, and its packages are not installed.
    """
    global _tracer
    if not config.otel_exporter_otlp_endpoint:
        return
    try:
        from shared.telemetry.otel import OpenTelemetry
    except ImportError as error:
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, and {error.name} is not installed: "
            "pip install order-fellow[tracing]"
        ) from None
    _tracer = OpenTelemetry(config.otel_exporter_otlp_endpoint, service)


def is_on() -> bool:
    """Return whether tracing is enabled."""
    return _tracer is not None


def span(name: str, *, kind: Kind = "internal", parent: str | None = None) -> Span:
    """Start a span.

    Args:
        name: of low cardinality: a route or a queue, not an id.
        kind: see OpenTelemetry, "SpanKind".
        parent: the `traceparent` of its parent; by default the current span, or a new trace.
    """
    return _OFF if _tracer is None else _tracer.span(name, kind, parent)


def under(parent: str | None) -> Span:
    """Return a context whose spans continue `parent`, without creating a span."""
    return _OFF if _tracer is None else _tracer.under(parent)


def current() -> str | None:
    """Return the `traceparent` of the current span; None if there is none."""
    return None if _tracer is None else _tracer.current()


def flush(seconds: float = 1.0) -> None:
    """Export pending spans; give up after `seconds`."""
    if _tracer is not None:
        _tracer.flush(seconds)
