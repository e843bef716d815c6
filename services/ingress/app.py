"""The composition root: every part of the public HTTP app is made and joined here.

The only module that may import other services, and of those only their `api`.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from services.accounts import api as accounts_api
from services.ingress import health, openapi, webhooks
from services.ingress.accepting import Acceptor
from services.ingress.docs_page import DocsPage, OpenApiDocument
from services.ingress.metrics import Metrics
from services.ingress.secret_cache import SecretCache
from services.ingress.secret_feed import SecretFeed
from services.kyc import api as kyc_api
from services.orders import api as orders_api
from services.secrets import api as secrets_api
from shared import heap, heartbeat
from shared.bus.publisher import Publisher
from shared.config import Settings, settings
from shared.http.errors import ApiError, too_many_requests
from shared.http.mount import Throttles, add_error_handlers, mount
from shared.http.rate_limits import TokenBuckets
from shared.http.route import Operation, Route
from shared.logs import configure

PREFIX = "/api/v1"
# Behind the routes that people use; a query for an unknown key never waits behind those.
API_THREADS = 8
INGRESS_THREADS = 4

ROUTES: tuple[Route, ...] = (
    *accounts_api.ROUTES,
    *kyc_api.ROUTES,
    *secrets_api.ROUTES,
    *orders_api.ROUTES,
)
OPERATIONS: tuple[Operation, ...] = (webhooks.OPERATION, *ROUTES)

log = structlog.get_logger()


class Ingress:
    """The parts that live as long as a worker, and when they start and stop.

    Falcon calls `process_startup` and `process_shutdown` by the ASGI lifespan protocol, in the
    worker's own process and loop: a pika connection must not be older than the fork.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.threads = ThreadPoolExecutor(INGRESS_THREADS, thread_name_prefix="ingress")
        self.publisher = Publisher(
            config.amqp_url,
            name="ingress",
            max_outstanding=config.max_outstanding_confirms,
            confirm_timeout=config.confirm_timeout,
            heartbeat=config.amqp_heartbeat,
        )
        self.cache = SecretCache(self.threads)
        self.feed = SecretFeed(
            self.cache,
            config.amqp_url,
            heartbeat=config.amqp_heartbeat,
            poll_seconds=config.secret_poll_seconds,
        )
        self.acceptor = Acceptor(
            self.publisher, self.threads, max_waiting=config.max_outstanding_confirms
        )
        self.metrics = Metrics()
        self._beside: list[asyncio.Task[None]] = []

    async def process_startup(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Start connecting and loading; requests may come at once."""
        await self.publisher.start()
        await self.feed.start()
        heap.freeze()
        self._beside = [
            asyncio.create_task(
                health.report(self.publisher, self.cache, self.acceptor, self.metrics)
            ),
            asyncio.create_task(heartbeat.keep_beating("services.ingress")),
        ]

    async def process_shutdown(self, _: dict[str, Any], __: dict[str, Any]) -> None:
        """Let go, after the last request has its answer."""
        for task in self._beside:
            task.cancel()
        await self.feed.stop()
        await self.publisher.stop()
        self.threads.shutdown(wait=False)

    async def process_response(self, _: Request, resp: Response, __: Any, ___: bool) -> None:
        """What holds for every answer."""
        resp.set_header("X-Content-Type-Options", "nosniff")


def create_app(config: Settings | None = None) -> falcon.asgi.App[Any, Any]:
    """The ASGI app of one worker.

    Args:
        config: the settings; those of the environment when not given.
    """
    config = config or settings()
    configure(config, "services.ingress")
    ingress = Ingress(config)
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[ingress])
    app.req_options.strip_url_path_trailing_slash = True
    add_error_handlers(app)
    threads = ThreadPoolExecutor(API_THREADS, thread_name_prefix="api")
    throttles = Throttles(
        address=_throttle(config.sign_in_attempts_per_minute),
        account=_throttle(config.account_attempts_per_minute),
    )
    mount(app, PREFIX, ROUTES, threads, throttles)
    app.add_route(
        PREFIX + "/webhooks/orders",
        webhooks.OrderWebhook(
            ingress.cache,
            ingress.acceptor,
            TokenBuckets(config.account_rate_per_second, config.account_rate_per_second),
            TokenBuckets(
                config.address_refusals_per_minute / 60, config.address_refusals_per_minute
            ),
            ingress.metrics,
            config.max_body_bytes,
        ),
    )
    _add_documentation(app, config, OPERATIONS)
    app.add_route("/healthz", health.Healthz())
    app.add_route(
        "/readyz",
        health.Readyz(ingress.publisher, ingress.cache, ingress.feed, ingress.threads),
    )
    app.add_route("/metrics", health.MetricsPage())
    return app


def _add_documentation(
    app: falcon.asgi.App[Any, Any], config: Settings, operations: Sequence[Operation]
) -> None:
    document = openapi.document(operations, prefix=PREFIX, server=config.public_url)
    app.add_route(PREFIX + "/openapi.json", OpenApiDocument(document))
    app.add_route(PREFIX + "/docs", DocsPage(operations, document, PREFIX))


def _throttle(per_minute: int) -> Callable[[str], ApiError | None]:
    buckets = TokenBuckets(per_minute / 60, per_minute)

    def throttle(key: str) -> ApiError | None:
        wait = buckets.take(key)
        return too_many_requests(wait) if wait else None

    return throttle
