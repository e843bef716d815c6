"""One look at everything: what the overview is made of."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.ops.monitoring import episodes, order_flow
from services.ops.monitoring.alerts import Trouble, troubles
from services.ops.monitoring.customer_flow import Others
from services.ops.monitoring.episodes import Episode
from services.ops.monitoring.queue_stats import Figures, Sample, figures
from services.ops.monitoring.sampler import PATIENCE, Sampler
from shared.config.settings import Settings
from shared.db.deadline import within
from shared.db.session import make_engine

ENOUGH = 200
"""So many samples tell how a queue has grown; more cost more than they tell."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Books:
    """What the database tells beside the queues.

    Attributes:
        counters: see `order_flow`.
        latency: see `order_flow`.
        database: see `order_flow`.
        seconds: how long it took to tell.
    """

    counters: order_flow.Counters
    latency: order_flow.Latency
    database: order_flow.Database
    seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Attributes:
        sample: of the queues and services.
        figures: by queue.
        troubles: what is wrong.
        books: None while the database is away.
        episodes: what is known of the troubles, by their keys; while the database is away, or takes
            no writes, what was known before of those that are still there.
        samples: the newest of this process, oldest first, `sample` among them.
    """

    sample: Sample
    figures: dict[str, Figures]
    troubles: list[Trouble]
    books: Books | None
    episodes: Mapping[str, Episode] = field(default_factory=dict)
    samples: Sequence[Sample] = ()

    @property
    def at(self) -> datetime:
        """When it was."""
        return self.sample.at


class Looker:
    """Looks, over connections that it keeps. Not for several threads at once.

    Args:
        config: where the servers are.
    """

    def __init__(self, config: Settings) -> None:
        # Of its own: pages that use up theirs are no database that is away.
        self._engine = make_engine(config, pool_size=2)
        self._sampler = Sampler(config.amqp_url, self._engine)
        self._others = Others()
        self._kept: Mapping[str, Episode] = {}

    def look(self) -> Look:
        """Look once; that a server is away is part of what is seen."""
        sample = self._sampler.take()
        samples = self._sampler.samples[-ENOUGH:]
        found, books = troubles(samples), None
        if sample.database_error is None:
            try:
                with within(PATIENCE):
                    books = _books(self._engine, self._others)
                    with Session(self._engine, expire_on_commit=False) as session, session.begin():
                        self._kept = episodes.keep(session, samples, found)
            except SQLAlchemyError as error:
                log.warning("not_kept", error=type(error).__name__)
                # Of a sample that was taken before: the database has gone since, or only reads.
                sample = self._sampler.amend(error)
                samples = self._sampler.samples[-ENOUGH:]
                found = troubles(samples)
        kept = self._kept
        if sample.database_error is not None:
            kept = {one.key: kept[one.key] for one in found if one.key in kept}
        by_name = {queue.name: queue for queue in figures(samples)}
        return Look(sample, by_name, found, books, kept, samples)

    def close(self) -> None:
        """Let go of the servers."""
        self._sampler.close()
        self._engine.dispose()


def _books(engine: Engine, others: Others) -> Books:
    started = time.monotonic()
    with Session(engine) as session:
        counters = others.of(session, order_flow.counters(session))
        latency = order_flow.latency(session)
        database = order_flow.database(session)
    return Books(counters, latency, database, time.monotonic() - started)
