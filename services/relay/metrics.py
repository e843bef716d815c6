"""What is counted of the outbox, and what waits in it."""

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

_PATIENCE = 2  # seconds; whoever scrapes gives up after 10 by default


def count(outcome: Outcome) -> None:
    """Count what became of rows."""
    published.inc(len(outcome.confirmed))
    postponed.inc(len(outcome.doubtful))
    parked.inc(len(outcome.parked))


class OutboxCollector(Collector):
    """Looks into the outbox when somebody scrapes, and at no other time.

    It says nothing while the database is away: no number is better than an old one.

    Args:
        engine: with a role that may read the outbox.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """The metrics without values; called by prometheus_client."""
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
        """The metrics with their values; called by prometheus_client."""
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
    """What looks into the outbox.

    Args:
        config: `database_url` counts.
    """
    url = config.database_url
    engine = create_engine(
        url,
        poolclass=NullPool,
        connect_args=connect_args(
            url, connect_seconds=_PATIENCE, options=f"-c statement_timeout={_PATIENCE * 1000}"
        ),
    )
    return OutboxCollector(engine)


def watch(config: Settings) -> None:
    """Show what waits in the outbox on this process's page.

    Args:
        config: `database_url` counts.
    """
    REGISTRY.register(outbox(config))
