"""Prometheus metrics of the ingress, one page for all its workers.

With several workers prometheus_client keeps each one's numbers in files of
`PROMETHEUS_MULTIPROC_DIR`, which `__main__.py` sets before anything imports it.
"""

import os
from bisect import bisect_left

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    values,
)

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    # The app is loaded in the worker, after the fork, so the process id is constant. The default
    # asks the kernel for it at each number, which took a tenth of the hot path.
    _pid = os.getpid()
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: _pid)

# Imported after it, since they define metrics.
from shared.http import metrics as http
from shared.telemetry.heartbeat import API, WEBHOOKS
from shared.telemetry.metrics import Failures

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Upper bounds of the time to an answer, in seconds; one more bucket has none."""
OURS = ("overloaded", "internal_error")
"""Error codes of webhooks that failed by a fault of this service."""
MOST_FAILED = 0.01
"""The share of failed webhooks from which a worker reports itself unwell."""

_requests = Counter("fellow_webhook_requests", "Webhook requests by outcome.", ["code"])
_latency = Histogram(
    "fellow_webhook_seconds",
    "Time from a webhook request to its answer.",
    buckets=BUCKETS,
)
_fallbacks = Counter("fellow_webhook_outbox_fallbacks", "Messages accepted into the outbox.")
_secrets = Gauge("fellow_secret_cache_size", "Secrets in memory.", multiprocess_mode="liveall")
_age = Gauge(
    "fellow_secret_cache_age_seconds",
    "Since the cache last agreed with the database.",
    multiprocess_mode="livemax",
)
_misses = Counter("fellow_secret_cache_misses", "Keys that were looked up in the database.")
_connected = Gauge(
    "fellow_bus_connected", "Whether the publisher may publish.", multiprocess_mode="liveall"
)
_outstanding = Gauge(
    "fellow_bus_outstanding_confirms",
    "Messages awaiting their confirm.",
    multiprocess_mode="livesum",
)

log_rows = Counter("fellow_webhook_log_rows", "Requests that were written to the request log.")
log_dropped = Counter(
    "fellow_webhook_log_dropped",
    "Requests that are not in the request log: full, failed, out_of_range, many_refusals, nobody.",
    ["reason"],
)
log_waiting = Gauge(
    "fellow_webhook_log_waiting", "Requests that wait to be written.", multiprocess_mode="liveall"
)


class Metrics:
    """Collects the metrics of one worker.

    Webhooks are counted in plain numbers and added to Prometheus' once a second, since each of its
    updates takes a lock and two writes to a file.
    """

    def __init__(self) -> None:
        self._by_code: dict[str, int] = {}
        self._by_time = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._fallbacks = self._misses = 0
        self._failures = Failures(MOST_FAILED)

    def webhook(self, code: str, seconds: float) -> None:
        """Count one webhook request, for the next `flush`.

        Args:
            code: `accepted`, or the error code.
            seconds: from its arrival to its answer.
        """
        self._by_code[code] = self._by_code.get(code, 0) + 1
        self._by_time[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def flush(self) -> None:
        """Add the counts to Prometheus' metrics."""
        if self._by_code:
            ours = sum(self._by_code.get(code, 0) for code in OURS)
            self._failures.add(sum(self._by_code.values()), ours)
        for code, count in self._by_code.items():
            _requests.labels(code).inc(count)
        for bucket, count in zip(_latency._buckets, self._by_time, strict=True):
            bucket.inc(count)
        _latency._sum.inc(self._seconds)
        self._by_code = {}
        self._by_time = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def unwell(self) -> dict[str, str]:
        """Return a sentence for each part that fails while broker and database are reachable."""
        found = {API: http.failing()}
        if failures := self._failures.excess():
            failed, count = failures
            found[WEBHOOKS] = (
                f"{failed:,} of {count:,} webhooks of the last five minutes were answered with "
                "5xx, and not since the broker or the database is away"
            )
        return {part: why for part, why in found.items() if why}

    def state(
        self,
        *,
        fallbacks: int,
        secrets: int,
        misses: int,
        age: float,
        connected: bool,
        outstanding: int,
    ) -> None:
        """Set the gauges of this worker, and add the increase of its totals to the counters."""
        self.flush()
        _fallbacks.inc(fallbacks - self._fallbacks)
        _misses.inc(misses - self._misses)
        self._fallbacks, self._misses = fallbacks, misses
        _secrets.set(secrets)
        _age.set(age)
        _connected.set(connected)
        _outstanding.set(outstanding)


def page() -> tuple[str, bytes]:
    """Return the content type and the body of the metrics page."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return CONTENT_TYPE_LATEST, generate_latest(registry)
    return CONTENT_TYPE_LATEST, generate_latest(REGISTRY)
