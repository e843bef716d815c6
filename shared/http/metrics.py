"""Metrics of routes: rate, errors and duration by route, method and status.

Labels come from the routes only, so that clients cannot create new ones. The webhook's hot path has
its own metrics (services/ingress/metrics.py).
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from falcon.asgi import Request, Response
from prometheus_client import Counter, Histogram

from shared.db.session import is_database_unavailable
from shared.http.errors import ApiError
from shared.http.route import Route
from shared.telemetry.metrics import Failures

MOST_FAILED = 0.02
_failures: dict[str, Failures] = {}
"""Requests that ended in a 500, by the path of the route."""

Responder = Callable[..., Awaitable[None]]

_requests = Counter("fellow_http_requests", "Requests answered.", ["method", "route", "status"])
_seconds = Histogram(
    "fellow_http_request_seconds",
    "Time from a request to its answer.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


def measured(route: Route, respond: Responder) -> Responder:
    """Wrap a responder to count and time it."""
    failures = _failures.setdefault(route.path, Failures(MOST_FAILED))

    async def measure(req: Request, resp: Response, **path: Any) -> None:
        started = time.perf_counter()
        status = 500
        try:
            await respond(req, resp, **path)
            status = resp.status_code
        except ApiError as error:
            status = error.status
            raise
        except Exception as error:
            if is_database_unavailable(error):
                status = 503
            raise
        finally:
            _requests.labels(route.method, route.path, status).inc()
            _seconds.labels(route.method, route.path).observe(time.perf_counter() - started)
            failures.add(1, int(status == 500))

    return measure


def failing() -> str:
    """Return a sentence on routes with many recent 500s; empty if there are none."""
    reported = {path: found for path, failures in _failures.items() if (found := failures.excess())}
    return ", ".join(
        f"{failed:,} of {count:,} requests to {path} of the last five minutes ended in an error of "
        "ours"
        for path, (failed, count) in reported.items()
    )
