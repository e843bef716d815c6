"""Serves the metrics page of a process without its own HTTP server, and defines common metrics.

Other metrics are defined beside what they measure, in modules called `metrics.py`; docs/metrics.md
lists them all. The ingress serves its page in its app, because it has several workers.
"""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import Counter, Gauge, start_http_server

from shared.config.environment import ConfigurationError
from shared.config.settings import Settings

_runs = Counter("fellow_job_runs", "Runs of a periodic job.", ["task", "outcome"])
_succeeded = Gauge(
    "fellow_job_last_success_timestamp_seconds",
    "When a periodic job last went well; when it was begun, until it has.",
    ["task"],
    multiprocess_mode="max",
)
_period = Gauge(
    "fellow_job_period_seconds",
    "From the end of one run of a periodic job to the next.",
    ["task"],
    multiprocess_mode="max",
)
_removed = Counter("fellow_retention_removed", "Removed since its time was over.", ["place"])
_oldest = Gauge(
    "fellow_retention_oldest_seconds",
    "Age of the oldest that is kept; 0: none.",
    ["place"],
    multiprocess_mode="livemax",
)


LATE_SECONDS, LATE_TURNS = 600.0, 3
"""A job is reported as late after this time plus this many periods without success, as in the
alert JobFailing."""


LATELY, SPAN_SECONDS = 300.0, 10.0
"""Length of the window of failures, and of its buckets."""
LEAST = 5
"""Fewest failures that are reported; fewer are only logged."""
LASTING_SECONDS, RECENT_SECONDS = 60.0, 90.0
"""Least time between the first and the last failure, and most time since the last: a short
disturbance is not reported."""


@dataclass(slots=True)
class _Job:
    period: float
    succeeded_at: float
    error: str = ""


_jobs: dict[str, _Job] = {}
"""The jobs of this process by name."""


class Failures:
    """Counts our own failures among the operations of the last `LATELY` seconds.

    Args:
        most: the tolerated share of failures, 0 to 1.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._counted: deque[tuple[float, int, int]] = deque()
        self._is_reported = False

    def add(self, count: int, failed: int) -> None:
        """Add a number of operations and the failed ones among them."""
        now = time.monotonic()
        if self._counted and now - self._counted[-1][0] < SPAN_SECONDS:
            at, before, failed_before = self._counted.pop()
            self._counted.append((at, before + count, failed_before + failed))
        else:
            self._counted.append((now, count, failed))
        while now - self._counted[0][0] > LATELY:
            self._counted.popleft()

    def excess(self) -> tuple[int, int] | None:
        """Return the failed and all operations of the window; None if failures are few or brief.

        Once reported, failures are reported until they are few, so that bursts are one episode.
        """
        now = time.monotonic()
        lately = [bucket for bucket in tuple(self._counted) if now - bucket[0] <= LATELY]
        count, failed = sum(count for _, count, _ in lately), sum(failed for *_, failed in lately)
        failing = [at for at, _, failed in lately if failed]
        if failed < LEAST or failed <= self._most * count:
            self._is_reported = False
        elif failing[-1] - failing[0] >= LASTING_SECONDS and now - failing[-1] <= RECENT_SECONDS:
            self._is_reported = True
        return (failed, count) if self._is_reported else None


def serve(config: Settings) -> None:
    """Serve this process's metrics from a separate thread, if `METRICS_PORT` is set.

    Args:
        config: provides `metrics_port` and `metrics_host`.

    Raises:
        ConfigurationError: it cannot listen on the port.
    """
    if not config.metrics_port:
        return
    try:
        start_http_server(config.metrics_port, config.metrics_host)
    except OSError as error:
        raise ConfigurationError(
            f"METRICS_PORT={config.metrics_port} cannot be listened on at "
            f"METRICS_HOST={config.metrics_host} ({error.strerror or error}): each process of one "
            "host needs a port of its own, or 0 for none"
        ) from None


def job_begins(name: str, seconds: float) -> None:
    """Register a periodic job; until its first success the time since now counts.

    Args:
        name: the job.
        seconds: from the end of one run to the start of the next.
    """
    _jobs[name] = _Job(seconds, time.monotonic())
    _succeeded.labels(name).set_to_current_time()
    _period.labels(name).set(seconds)


def job_ran(name: str, error: str = "") -> None:
    """Count one run of a periodic job.

    Args:
        name: the job.
        error: the kind of error; empty for a success.
    """
    _runs.labels(name, "failed" if error else "done").inc()
    job = _jobs.get(name)
    if job is not None:
        job.error = error
    if not error:
        _succeeded.labels(name).set_to_current_time()
        if job is not None:
            job.succeeded_at = time.monotonic()


def late_jobs() -> Mapping[str, tuple[float, str]]:
    """Return the late jobs of this process: seconds since the last success, and the last error."""
    now = time.monotonic()
    return {
        name: (now - job.succeeded_at, job.error)
        for name, job in list(_jobs.items())
        if now - job.succeeded_at > LATE_SECONDS + LATE_TURNS * job.period
    }


def kept(place: str, removed: int, oldest: datetime | None) -> None:
    """Record the result of a retention run.

    Args:
        place: its name; see `shared/db/retention.py`.
        removed: number of removed rows.
        oldest: time of the oldest kept row; None if there is none.
    """
    _removed.labels(place).inc(removed)
    age = 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
    _oldest.labels(place).set(max(age, 0.0))
