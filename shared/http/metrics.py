"""Rate, errors and duration of the routes of a table, by route, method and status.

The labels come from the table alone, so a stranger cannot make new ones. The webhook's hot path has
metrics of its own (services/ingress/metrics.py).
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from falcon.asgi import Request, Response
from prometheus_client import Counter, Histogram

from shared.db.session import is_database_away
from shared.http.errors import ApiError
from shared.http.route import Route

Responder = Callable[..., Awaitable[None]]

_requests = Counter("fellow_http_requests", "Requests answered.", ["method", "route", "status"])
_seconds = Histogram(
    "fellow_http_request_seconds",
    "Time from a request to its answer.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


def measured(route: Route, respond: Responder) -> Responder:
    """A responder that is counted and timed."""

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
            if is_database_away(error):
                status = 503
            raise
        finally:
            _requests.labels(route.method, route.path, status).inc()
            _seconds.labels(route.method, route.path).observe(time.perf_counter() - started)

    return measure
