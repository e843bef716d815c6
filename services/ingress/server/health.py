"""`/healthz`, `/readyz` and `/metrics`, for probes and scrapers."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import falcon
import structlog
from falcon.asgi import Request, Response
from sqlalchemy import text

from services.ingress import metrics
from services.ingress.credentials.cache import SecretCache
from services.ingress.credentials.feed import SecretFeed
from services.ingress.webhook.acceptor import Acceptor
from shared.bus.publish.publisher import Publisher
from shared.db.deadline import within
from shared.db.session import engine
from shared.http.callers import client_address, is_internal
from shared.http.errors import ApiError

STALE_SECONDS = 30.0
PROBE_SECONDS = 2.0
PROBED_SECONDS = 0.5
"""How long a probe's result is cached: anyone may call, and each query blocks a thread."""

log = structlog.get_logger()


class Healthz:
    """`GET /healthz`: whether the process answers."""

    async def on_get(self, _: Request, resp: Response) -> None:
        """Answer 200."""
        resp.media = {"status": "alive"}

    on_head = on_get


class Readyz:
    """`GET /readyz`: whether orders can be accepted durably; 503 if not."""

    def __init__(
        self,
        publisher: Publisher,
        cache: SecretCache,
        feed: SecretFeed,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._publisher = publisher
        self._cache = cache
        self._feed = feed
        self._threads = threads
        self._probe: asyncio.Task[str] | None = None
        self._probe_due = 0.0

    async def on_get(self, req: Request, resp: Response) -> None:
        """Answer with the state of every part; `degraded` means that orders use a fallback.

        The broker's address, and why it is unreachable or refuses, is shown to internal addresses
        only, since it names users and hosts.
        """
        bus = self._publisher.state
        database = await self._database()
        age = cache_age(self._cache)
        parts: dict[str, Any] = {
            "bus": bus,
            "database": database,
            "secret_events": "listening" if self._feed.is_listening else "away",
            "secrets": len(self._cache),
            "secrets_age_seconds": None if age is None else round(age, 1),
        }
        can_store = bus == "connected" or database == "connected"
        ready = age is not None and can_store
        fine = (
            bus == database == "connected"
            and self._feed.is_listening
            and (age or 0.0) < STALE_SECONDS
        )
        reasons = {
            standing.part: f"{standing.status.state}: {standing.status.reason}"
            for standing in (self._publisher.standing, self._feed.standing)
            if not standing.status.is_well
        }
        if is_internal(client_address(req)):
            parts["bus_address"] = self._publisher.standing.where
            if reasons:
                parts["reasons"] = reasons
        status = "not ready" if not ready else "ready" if fine else "degraded"
        resp.status = 200 if ready else 503
        resp.media = {"status": status, **parts}

    on_head = on_get

    async def _database(self) -> str:
        if self._probe is None or (self._probe.done() and time.monotonic() >= self._probe_due):
            self._probe = asyncio.get_running_loop().create_task(self._ask_database())
        return await asyncio.shield(self._probe)

    async def _ask_database(self) -> str:
        @within(PROBE_SECONDS)
        def probe() -> None:
            with engine().connect() as connection:
                connection.execute(text("SELECT 1"))

        running = asyncio.get_running_loop().run_in_executor(self._threads, probe)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await running
        except Exception:  # noqa: BLE001 - any failure means unreachable
            return "away"
        finally:
            self._probe_due = time.monotonic() + PROBED_SECONDS
        return "connected"


class MetricsPage:
    """`GET /metrics`, for internal addresses only; other workers' numbers are a second old.

    Args:
        counted: the metrics of this worker.
    """

    def __init__(self, counted: metrics.Metrics) -> None:
        self._counted = counted

    async def on_get(self, req: Request, resp: Response) -> None:
        """Answer 200 in Prometheus' text format; 404 to an external address."""
        if not is_internal(client_address(req)):
            raise ApiError(404, "not_found", "There is nothing here.")
        self._counted.flush()
        content_type, resp.data = await asyncio.to_thread(metrics.page)
        resp.content_type = content_type
        resp.status = falcon.HTTP_200

    on_head = on_get


def cache_age(cache: SecretCache) -> float | None:
    """Return the seconds since a cache's last poll; None before the first."""
    return None if cache.refreshed_at is None else time.monotonic() - cache.refreshed_at


async def report(
    publisher: Publisher, cache: SecretCache, acceptor: Acceptor, gauges: metrics.Metrics
) -> None:
    """Set this worker's gauges every second, until cancelled."""
    while True:
        gauges.state(
            fallbacks=acceptor.fallbacks,
            secrets=len(cache),
            misses=cache.misses,
            age=cache_age(cache) or 0.0,
            connected=publisher.state == "connected",
            outstanding=publisher.outstanding,
        )
        await asyncio.sleep(1)
