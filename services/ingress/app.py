"""The composition root of the public HTTP app.

The only module that may import other services, and of those only their `api`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import falcon.asgi
import structlog

from services.accounts import api as accounts_api
from services.audit import api as audit_api
from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.feed import SecretFeed
from services.ingress.credentials.policies import Policies
from services.ingress.diagnosis import api as diagnosis_api
from services.ingress.docs import codes_api, openapi, operations, security_txt
from services.ingress.docs.page import DocsPage, OpenApiDocument
from services.ingress.metrics import Metrics
from services.ingress.platforms.known import PLATFORMS
from services.ingress.request_log import api as request_log_api
from services.ingress.request_log import health_api, receipts
from services.ingress.request_log.writer import RequestLog
from services.ingress.server import health
from services.ingress.shops.authentication import PlatformScheme
from services.ingress.shops.endpoint import PlatformWebhook
from services.ingress.webhook import limits_api
from services.ingress.webhook.acceptor import Acceptor
from services.ingress.webhook.admission import Admission
from services.ingress.webhook.authentication import ApiKeyScheme, StandardScheme
from services.ingress.webhook.endpoint import OrderWebhook, Parts
from services.ingress.webhook.known_keys import KnownKeys
from services.ingress.webhook.refusals import Refusals
from services.kyc import api as kyc_api
from services.notifier import api as notifier_api
from services.orders import api as orders_api
from services.secrets import api as secrets_api
from shared import gc_tuning
from shared.bus.publish.traced import publisher_class
from shared.config.loading import settings
from shared.config.settings import Settings
from shared.db import retention
from shared.http.errors import ApiError, too_many_requests
from shared.http.lanes import Lane, Lanes, for_passwords
from shared.http.mount import add_error_handlers, mount
from shared.http.route import Operation, Route, Throttles
from shared.http.traced import App, traced
from shared.security import passwords
from shared.telemetry import heartbeat, tracing
from shared.telemetry.logs import configure
from shared.token_buckets import TokenBuckets

PREFIX = "/api/v1"
# Separate pools: a look-up of an unknown key must not wait for the routes that people use, and
# neither may the outbox and the secret cache's polls wait for look-ups.
API_THREADS = 8
API_WAITING = 128
INGRESS_THREADS = 4
LOOKUP_THREADS = 2
BUSY_SESSIONS = 5
"""How many sessions of an account can make all their changes in one minute."""

_ROUTES: tuple[Route, ...] = (
    *diagnosis_api.ROUTES,
    *limits_api.ROUTES,
    *accounts_api.ROUTES,
    *kyc_api.ROUTES,
    *secrets_api.ROUTES,
    *orders_api.ROUTES,
    *notifier_api.ROUTES,
    *audit_api.ROUTES,
    *request_log_api.ROUTES,
    *receipts.ROUTES,
    *health_api.ROUTES,
)
ROUTES = (*_ROUTES, *codes_api.routes((*operations.OPERATIONS, *_ROUTES)))
OPERATIONS: tuple[Operation, ...] = (*operations.OPERATIONS, *ROUTES)

log = structlog.get_logger()


class Ingress:
    """The parts of a worker, started and stopped with it.

    Falcon calls `process_startup` and `process_shutdown` by the ASGI lifespan protocol, in the
    worker's process and loop: a pika connection must be opened after the fork.
    """

    def __init__(self, config: Settings) -> None:
        self.config = config
        self.threads = ThreadPoolExecutor(INGRESS_THREADS, thread_name_prefix="ingress")
        self.lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="look-ups")
        self.publisher = publisher_class()(
            config.amqp_url,
            name="ingress",
            max_outstanding=config.max_outstanding_confirms,
            confirm_timeout=config.confirm_timeout,
            heartbeat=config.amqp_heartbeat,
            shards=config.intake_shards,
        )
        self.policies = Policies()
        self.cache = SecretCache(self.threads, self.lookups, self.policies)
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
        self.request_log = RequestLog()
        self._beside: list[asyncio.Task[None]] = []

    async def process_startup(self, _: Mapping[str, Any], __: Mapping[str, Any]) -> None:
        """Start connecting and loading, in the background; requests may arrive meanwhile."""
        await self.publisher.start()
        await self.feed.start()
        self.request_log.start()
        gc_tuning.freeze()
        self._beside = [
            asyncio.create_task(
                health.report(self.publisher, self.cache, self.acceptor, self.metrics)
            ),
            asyncio.create_task(
                heartbeat.run_heartbeat(
                    "services.ingress",
                    lambda: [self.publisher.standing, self.feed.standing],
                    problems=self.metrics.unwell,
                )
            ),
            asyncio.create_task(retention.run_retention("ingress", self.config)),
        ]

    async def process_shutdown(self, _: Mapping[str, Any], __: Mapping[str, Any]) -> None:
        """Stop all parts, after the last request was answered."""
        for task in self._beside:
            task.cancel()
        await self.request_log.stop()
        await self.feed.stop()
        await self.publisher.stop()
        self.metrics.flush()
        self.threads.shutdown(wait=False)
        self.lookups.shutdown(wait=False)
        await asyncio.to_thread(tracing.flush)


def create_app(config: Settings | None = None) -> App:
    """Return the ASGI app of one worker.

    Args:
        config: the settings; by default those of the environment.
    """
    config = config or settings()
    configure(config, "services.ingress")
    tracing.configure(config, "services.ingress")
    passwords.share_cores(config.web_concurrency)
    ingress = Ingress(config)
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App(middleware=[ingress])
    app.req_options.strip_url_path_trailing_slash = True
    add_error_handlers(app)
    lanes = Lanes(
        ordinary=Lane("api", API_THREADS, API_WAITING), passwords=for_passwords("api passwords")
    )
    throttles = Throttles(
        network=_throttle(config.sign_in_attempts_per_minute),
        session=_throttle(config.account_attempts_per_minute),
        account=_throttle(BUSY_SESSIONS * config.account_attempts_per_minute),
        link=_throttle(config.tracking_views_per_minute),
    )
    mount(app, PREFIX, ROUTES, lanes, throttles)
    leave = notifier_api.UnsubscribePage(lanes.ordinary, throttles.link)
    app.add_route(PREFIX + notifier_api.UNSUBSCRIBE_PATH.rstrip("/"), leave)
    _add_webhooks(app, ingress)
    _add_documentation(app, config, OPERATIONS)
    if config.security_contact:
        app.add_route(security_txt.PATH, security_txt.SecurityTxt(config))
    app.add_route("/healthz", health.Healthz())
    app.add_route(
        "/readyz",
        health.Readyz(ingress.publisher, ingress.cache, ingress.feed, ingress.threads),
    )
    app.add_route("/metrics", health.MetricsPage(ingress.metrics))
    return traced(app) if tracing.is_on() else app


def _add_webhooks(app: falcon.asgi.App[Any, Any], ingress: Ingress) -> None:
    config = ingress.config
    refused = config.address_refusals_per_minute
    refusals = Refusals(TokenBuckets(refused / 60, refused))
    rate = config.account_rate_per_second
    admission = Admission(
        ingress.acceptor,
        refusals,
        ingress.policies,
        TokenBuckets(rate, rate),
        rate,
        f"{config.public_url.rstrip('/')}{PREFIX}/docs/",
        ingress.cache.clock,
    )
    parts = Parts(
        admission=admission,
        acceptor=ingress.acceptor,
        metrics=ingress.metrics,
        request_log=ingress.request_log,
        clock=ingress.cache.clock,
    )
    for platform in PLATFORMS:
        of_platform = PlatformScheme(platform, ingress.cache, refusals, config.max_body_bytes)
        app.add_route(
            PREFIX + platform.path.rstrip("/"), PlatformWebhook(platform, of_platform, parts)
        )
    known_keys = KnownKeys()  # shared by both schemes, which derive the same order id from a key
    for path, scheme in (
        ("/webhooks/orders", ApiKeyScheme),
        ("/webhooks/{account_id}/orders", StandardScheme),
    ):
        authentication = scheme(ingress.cache, refusals, config.max_body_bytes)
        app.add_route(PREFIX + path, OrderWebhook(authentication, parts, known_keys))


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
