"""One snapshot of the whole system: the data of the overview."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.ops.broker.connection import open_connection
from services.ops.monitoring import episodes, order_flow
from services.ops.monitoring.alerts import Trouble, troubles
from services.ops.monitoring.customer_flow import CustomerCounters
from services.ops.monitoring.episodes import Episode
from services.ops.monitoring.queue_stats import Figures, Sample, figures
from services.ops.monitoring.sampler import PATIENCE, Sampler
from shared.config.settings import Settings
from shared.db.deadline import ANSWER_SECONDS, within
from shared.db.session import make_engine

ENOUGH = 200
"""Samples that growth and ages are computed from; more would cost more than they add."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DatabaseStats:
    """Figures from the database; see `order_flow`.

    Attributes:
        counters: of orders and emails.
        latency: of recent orders.
        database: of the server.
        seconds: how long the queries took.
    """

    counters: order_flow.Counters
    latency: order_flow.Latency
    database: order_flow.Database
    seconds: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the system at one time.

    Attributes:
        sample: of the queues and services.
        figures: by queue.
        troubles: the conditions that are wrong.
        stats: None while the database is unreachable.
        episodes: the open episodes, by the key of their trouble; while the database is unreachable
            or read-only, the last known ones of the troubles that remain.
        samples: the newest of this process, oldest first, `sample` among them.
    """

    sample: Sample
    figures: dict[str, Figures]
    troubles: list[Trouble]
    stats: DatabaseStats | None
    episodes: Mapping[str, Episode] = field(default_factory=dict)
    samples: Sequence[Sample] = ()

    @property
    def at(self) -> datetime:
        """When it was taken."""
        return self.sample.at


class SnapshotCollector:
    """Takes snapshots over connections that it keeps. Not thread-safe.

    Args:
        config: the addresses of the servers.
    """

    def __init__(self, config: Settings) -> None:
        # A separate pool: when pages exhaust theirs, the database is not unreachable.
        self._engine = make_engine(config, pool_size=2)
        self._sampler = Sampler(config.amqp_url, self._engine, config.intake_shards)
        self._amqp_url = config.amqp_url
        self._probe_engine = make_engine(config, pool_size=1)
        self._customers = CustomerCounters()
        self._kept: Mapping[str, Episode] = {}

    def collect(self) -> Snapshot:
        """Take one snapshot; an unreachable server is part of it, and raises nothing."""
        sample = self._sampler.take()
        samples = self._sampler.samples[-ENOUGH:]
        found, stats = troubles(samples), None
        if sample.database_error is None:
            try:
                with within(PATIENCE):
                    stats = _database_stats(self._engine, self._customers)
                    with Session(self._engine, expire_on_commit=False) as session, session.begin():
                        self._kept = episodes.keep(session, samples, found)
            except SQLAlchemyError as error:
                log.warning("not_kept", error=type(error).__name__)
                # The database failed, or became read-only, since the sample was taken.
                sample = self._sampler.amend(error)
                samples = self._sampler.samples[-ENOUGH:]
                found = troubles(samples)
        kept = self._kept
        if sample.database_error is not None:
            kept = {trouble.key: kept[trouble.key] for trouble in found if trouble.key in kept}
        by_name = {queue.name: queue for queue in figures(samples)}
        return Snapshot(sample, by_name, found, stats, kept, samples)

    def ask_database(self) -> None:
        """Run an empty query on a separate connection, also while a snapshot is blocked."""
        with within(ANSWER_SECONDS), self._probe_engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def ask_broker(self) -> None:
        """Open a connection to the broker, also while a snapshot is blocked."""
        open_connection(self._amqp_url).release()

    def close(self) -> None:
        """Close the connections."""
        self._sampler.close()
        self._engine.dispose()
        self._probe_engine.dispose()


def _database_stats(engine: Engine, customers: CustomerCounters) -> DatabaseStats:
    started = time.monotonic()
    with Session(engine) as session:
        counters = customers.of(session, order_flow.counters(session))
        latency = order_flow.latency(session)
        database = order_flow.database(session)
    return DatabaseStats(counters, latency, database, time.monotonic() - started)
