"""A span for each request of a Falcon app. In use only while tracing is on."""

from collections.abc import Awaitable, Callable
from typing import Any

import falcon.asgi
from falcon.asgi import Request, Response

from shared.telemetry import tracing

App = Callable[[Any, Any, Any], Awaitable[None]]

_KEY = "fellow.span"
# Somebody asks for these every few seconds, for ever.
_PROBES = ("/healthz", "/readyz", "/metrics")


def traced(app: falcon.asgi.App[Any, Any]) -> App:
    """The app with a span for each request, in the trace that the request names or in a new one.

    The app sees the span as the request's `traceparent`, so all that it hands on goes on from it.
    """
    app.add_middleware(_Naming())

    async def call(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"traceparent"]
        parent = given[0].decode("latin-1") if len(given) == 1 else None
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


class _Naming:
    async def process_resource(
        self, req: Request, _: Response, __: object, ___: dict[str, Any]
    ) -> None:
        """Called by Falcon when the route is known: an id in a path makes no name."""
        span = req.scope.get(_KEY)
        if span is not None:
            span.rename(f"{req.method} {req.uri_template}")
            span.set("http.route", req.uri_template)
