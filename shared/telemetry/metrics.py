"""The metrics page of a process without HTTP of its own, and what every such process counts.

The metrics themselves stand beside what they measure, in modules called `metrics.py`;
docs/metrics.md lists them all. The ingress has its page in its app, since it has several workers.
"""

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


def serve(config: Settings) -> None:
    """Serve this process's metrics from a thread of their own; nothing without `METRICS_PORT`.

    Args:
        config: `metrics_port` and `metrics_host` count.

    Raises:
        ConfigurationError: the port cannot be listened on.
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
    """Show a periodic job before its first run: one that has never gone well counts from now.

    Args:
        name: the job.
        seconds: from the end of one run to the start of the next.
    """
    _succeeded.labels(name).set_to_current_time()
    _period.labels(name).set(seconds)


def job_ran(name: str, *, well: bool) -> None:
    """Count one run of a periodic job.

    Args:
        name: the job.
        well: whether it went through.
    """
    _runs.labels(name, "done" if well else "failed").inc()
    if well:
        _succeeded.labels(name).set_to_current_time()


def kept(place: str, removed: int, oldest: datetime | None) -> None:
    """Say what was removed since its time was over, and how old the oldest is that is kept.

    Args:
        place: where; see `shared/db/retention.py`.
        removed: how much.
        oldest: when that was; None when there is none.
    """
    _removed.labels(place).inc(removed)
    age = 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
    _oldest.labels(place).set(max(age, 0.0))
