"""Traces by OpenTelemetry, when `OTEL_EXPORTER_OTLP_ENDPOINT` says where they go.

Otherwise every span is the same empty object, nothing of OpenTelemetry is imported, and a call here
costs a tenth of a microsecond. The standard's other variables hold as well, such as
`OTEL_TRACES_SAMPLER` and `OTEL_EXPORTER_OTLP_HEADERS`.

A trace travels as a `traceparent` (W3C Trace Context, 3.2), in a header of requests and messages.
"""

from typing import Literal, Protocol

from shared.config.environment import ConfigurationError
from shared.config.settings import Settings

Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Span:
    """A piece of work; this one is not recorded.

    As a context manager it is the parent of what is begun inside, and ends with it.
    """

    traceparent: str | None = None
    """Names this span to those who go on from it."""

    def __enter__(self) -> "Span":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        return None

    def rename(self, name: str) -> None:
        """Give it the name that is known only now."""

    def set(self, name: str, value: str | int) -> None:
        """Add an attribute. Never an address, a body, a secret."""

    def link(self, other: "Span") -> None:
        """Say that it has to do with a span of another trace."""

    def fail(self, error: BaseException) -> None:
        """Mark it as failed, by the error's class: there may be data in its words."""

    def end(self, error: BaseException | None = None) -> None:
        """End it, where it was not used as a context manager."""


class Tracer(Protocol):
    """What makes recorded spans; see the functions of the same names."""

    def span(self, name: str, kind: Kind, parent: str | None) -> Span: ...  # noqa: D102

    def under(self, parent: str | None) -> Span: ...  # noqa: D102

    def current(self) -> str | None: ...  # noqa: D102

    def flush(self, seconds: float) -> None: ...  # noqa: D102


_OFF = Span()
_tracer: Tracer | None = None


def configure(config: Settings, service: str) -> None:
    """Begin tracing in this process, when it is wanted. Call it after a fork, not before.

    Args:
        config: `otel_exporter_otlp_endpoint` counts.
        service: named in every span.

    Raises:
        ConfigurationError: it is wanted, and the packages for it are not there.
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
    """Whether this process traces."""
    return _tracer is not None


def span(name: str, *, kind: Kind = "internal", parent: str | None = None) -> Span:
    """Begin a span.

    Args:
        name: of few values: a route, a queue, and no id.
        kind: see OpenTelemetry, "SpanKind".
        parent: the `traceparent` that it goes on from; not given, the current span, or a new trace.
    """
    return _OFF if _tracer is None else _tracer.span(name, kind, parent)


def under(parent: str | None) -> Span:
    """No span of its own: within it, what is begun goes on from `parent`."""
    return _OFF if _tracer is None else _tracer.under(parent)


def current() -> str | None:
    """The `traceparent` of the current span; None when there is none."""
    return None if _tracer is None else _tracer.current()


def flush(seconds: float = 1.0) -> None:
    """Send what has not been sent; give up after so many seconds."""
    if _tracer is not None:
        _tracer.flush(seconds)
