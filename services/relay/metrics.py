"""Metrics of the relay and of the outbox."""

from collections.abc import Iterable

from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from services.relay.rows import Outcome
from shared.bus.outbox import standing
from shared.config.settings import Settings
from shared.db.session import connect_args

published = Counter("fellow_outbox_published", "Rows published, confirmed and deleted.")
postponed = Counter(
    "fellow_outbox_postponed", "Rows that were sent and not confirmed in time; tried again."
)
parked = Counter("fellow_outbox_parked", "Rows that could not be published, each time.")

_TIMEOUT = 2  # seconds; Prometheus gives up after 10 by default


def count(outcome: Outcome) -> None:
    """Count the outcomes of rows."""
    published.inc(len(outcome.confirmed))
    postponed.inc(len(outcome.doubtful))
    parked.inc(len(outcome.parked))


class OutboxCollector(Collector):
    """Reads the counts of the outbox at each scrape.

    Returns no values while the database is unreachable, rather than old ones.

    Args:
        engine: of a role that may read the outbox.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values; called by prometheus_client."""
        return [
            GaugeMetricFamily(
                "fellow_outbox_messages",
                "Rows that wait to be published; 100,001: more than 100,000.",
            ),
            GaugeMetricFamily(
                "fellow_outbox_oldest_seconds", "How long the oldest row waits; 0: none does."
            ),
            GaugeMetricFamily(
                "fellow_outbox_parked_messages", "Rows that cannot be published as they are."
            ),
            GaugeMetricFamily(
                "fellow_outbox_parked_seconds",
                "How long the first of them has been parked; 0: none is.",
            ),
        ]

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with values; called by prometheus_client."""
        try:
            with self._engine.connect() as connection:
                found_now = standing(connection)
        except SQLAlchemyError:
            return []
        found = list(self.describe())
        ages = (found_now.waiting_age, found_now.parked_age)
        waiting_seconds, parked_seconds = (age.total_seconds() if age else 0.0 for age in ages)
        values = (found_now.waiting, waiting_seconds, found_now.parked, parked_seconds)
        for metric, value in zip(found, values, strict=True):
            metric.add_sample(metric.name, {}, float(value))
        return found


def outbox(config: Settings) -> OutboxCollector:
    """Return a collector for the outbox of a database.

    Args:
        config: `database_url` is used.
    """
    url = config.database_url
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args=connect_args(
            url, connect_seconds=_TIMEOUT, options=f"-c statement_timeout={_TIMEOUT * 1000}"
        ),
    )
    return OutboxCollector(engine)


def watch(config: Settings) -> None:
    """Add the outbox to the metrics of this process.

    Args:
        config: `database_url` is used.
    """
    REGISTRY.register(outbox(config))
