"""What is counted of the outbox, and what waits in it."""

from collections.abc import Iterable

from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from shared.config import Settings

published = Counter("fellow_outbox_published", "Rows published, confirmed and deleted.")
postponed = Counter(
    "fellow_outbox_postponed", "Rows that the broker returned or did not confirm; tried again."
)

# Whoever scrapes gives up after 10 s by default.
_PATIENCE = {"connect_timeout": 2, "options": "-c statement_timeout=2000"}
_WAITING = text("""
    SELECT count(*) AS messages,
           coalesce(extract(epoch FROM now() - min(created_at)), 0) AS oldest
    FROM outbox
""")


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
            GaugeMetricFamily("fellow_outbox_messages", "Rows that wait to be published."),
            GaugeMetricFamily(
                "fellow_outbox_oldest_seconds", "How long the oldest row waits; 0: none does."
            ),
        ]

    def collect(self) -> Iterable[Metric]:
        """The metrics with their values; called by prometheus_client."""
        try:
            with self._engine.connect() as connection:
                row = connection.execute(_WAITING).one()
        except SQLAlchemyError:
            return []
        messages, oldest = found = list(self.describe())
        messages.add_sample(messages.name, {}, float(row.messages))
        oldest.add_sample(oldest.name, {}, float(row.oldest))
        return found


def watch(config: Settings) -> None:
    """Show what waits in the outbox on this process's page.

    Args:
        config: `database_url` counts.
    """
    engine = create_engine(config.database_url, poolclass=NullPool, connect_args=_PATIENCE)
    REGISTRY.register(OutboxCollector(engine))
