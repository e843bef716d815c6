"""Creates a span for each request of a Falcon app; used only if tracing is enabled."""

from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi
from falcon.asgi import Request, Response

from shared.telemetry import tracing

App = Callable[[Any, Any, Any], Awaitable[None]]

_KEY = "fellow.span"
# Polled every few seconds.
_PROBES = ("/healthz", "/readyz", "/metrics")


def traced(app: falcon.asgi.App[Any, Any]) -> App:
    """Wrap an app to create a span for each request, in the request's trace or in a new one.

    The app sees the span as the request's `traceparent`, so further spans and messages continue it.
    """
    app.add_middleware(_RouteNames())

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await app(scope, receive, send)
            return
        traceparents = [value for name, value in scope["headers"] if name == b"traceparent"]
        parent = traceparents[0].decode("latin-1") if len(traceparents) == 1 else None
        with tracing.span(scope["method"], kind="server", parent=parent) as span:
            span.set("http.request.method", scope["method"])
            headers = [pair for pair in scope["headers"] if pair[0] != b"traceparent"]
            if span.traceparent is not None:
                headers.append((b"traceparent", span.traceparent.encode()))

            async def answer(event: Any) -> None:
                if event["type"] == "http.response.start":
                    span.set("http.response.status_code", event["status"])
                await send(event)

            await app({**scope, "headers": headers, _KEY: span}, receive, answer)

    return call


class _RouteNames:
    async def process_resource(
        self, req: Request, _: Response, __: object, ___: dict[str, Any]
    ) -> None:
        """Name the span by its route, which unlike the path contains no ids. Called by Falcon."""
        span = req.scope.get(_KEY)
        if span is not None:
            span.rename(f"{req.method} {req.uri_template}")
            span.set("http.route", req.uri_template)
