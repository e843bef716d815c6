"""Takes samples of the broker, over AMQP, and of the database."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from amqp.exceptions import AccessRefused
from kombu import Connection
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.ops.broker.connection import AlarmProbe, open_connection
from services.ops.broker.hold import hold
from services.ops.broker.queue_lock import locked
from services.ops.dead_letters.letter import Letter
from services.ops.monitoring import heartbeats, order_flow, queue_stats
from services.ops.monitoring.queue_stats import Sample
from shared.bus import outbox
from shared.bus.broker.kombu_connection import BrokerConnection
from shared.bus.broker.queue_counts import Count, NotKnownError
from shared.bus.broker.refusal import explain
from shared.bus.contract import topology
from shared.db.deadline import TookTooLongError, at_most, within
from shared.db.session import is_read_only

PATIENCE = 8.0
"""Seconds for the database's answers: the next snapshot comes soon."""
COUNT_SECONDS = 2.0
"""For the counts of the outbox and of emails: a database that needs longer is slow, not
unreachable."""
KEPT = 720  # samples: an hour of one every five seconds


class Sampler:
    """Takes samples, and keeps those of the last hour. Not thread-safe.

    Args:
        amqp_url: of the broker.
        engine: of the database; None if there is none.
        shards: the number of queues of `intake`.
    """

    def __init__(self, amqp_url: str, engine: Engine | None, shards: int = 1) -> None:
        self._amqp_url = amqp_url
        self._shards = shards
        self._engine = engine
        self._connection: BrokerConnection | None = None
        self._probe = AlarmProbe(amqp_url)
        self._letters: dict[str, tuple[int, datetime | None]] = {}
        self._samples: deque[Sample] = deque(maxlen=KEPT)

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples, oldest first."""
        return tuple(self._samples)

    def take(self) -> Sample:
        """Take a sample. It never raises: the sample states which server failed, and why."""
        broker = self._ask_broker()
        database = self._ask_database()
        sample = Sample(at=datetime.now(UTC), **broker, **database)
        self._samples.append(sample)
        return sample

    def amend(self, error: SQLAlchemyError) -> Sample:
        """Add a later failure of the database to the newest sample."""
        self._samples[-1] = replace(self._samples[-1], **_failure(error))
        return self._samples[-1]

    def close(self) -> None:
        """Close the connection to the broker."""
        self._probe.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _ask_broker(self) -> dict[str, Any]:
        try:
            if self._connection is None:
                self._connection = open_connection(self._amqp_url)
            stats = queue_stats.counts(self._connection, self._shards)
            dead_since = self._dead_since(self._connection, stats.counts)
            return {
                **stats._asdict(),
                "dead_since": dead_since,
                "alarm": self._probe.check(),
            }
        except Exception as error:  # noqa: BLE001 - the sample states any failure
            if self._connection is not None:
                self._connection.leave()
            self.close()
            refused = isinstance(error, AccessRefused)
            return {"broker_error": explain(error).sentence, "is_refused": refused}

    def _dead_since(self, connection: Connection, counts: dict[str, Count]) -> dict[str, datetime]:
        """Return when the first letter of each dead queue died; read when their number changes."""
        for queue in topology.WORK_QUEUES:
            count = counts.get(queue.dead)
            if count is not None and count.consumers:
                continue  # a tool holds them, and returns most
            if count is None or not count.ready:
                self._letters.pop(queue.dead, None)
            elif self._letters.get(queue.dead, (0, None))[0] != count.ready:
                # Neither wait nor disturb a tool that is at work there: the next sample comes soon.
                try:
                    with locked(queue.dead, 0.0) as is_free:
                        if not is_free:
                            continue
                        with hold(connection, queue.dead, 1) as held:
                            if not held.alone:
                                continue
                            letters = [Letter.of(queue, one, 0, "") for one in held.take(1)]
                except NotKnownError:
                    continue  # one queue is unresponsive, not the broker
                first = [letter.died_at for letter in letters]
                self._letters[queue.dead] = (count.ready, first[0] if first else None)
        return {name: since for name, (_, since) in self._letters.items() if since is not None}

    def _ask_database(self) -> dict[str, Any]:
        if self._engine is None:
            return {}
        try:
            with within(PATIENCE), Session(self._engine) as session:
                beats = heartbeats.read(session, datetime.now(UTC))
                return {"beats": beats} | _outbox(session) | _emails(session)
        except SQLAlchemyError as error:
            return _failure(error)


def _outbox(session: Session) -> dict[str, Any]:
    """Return the outbox's figures, or none after `COUNT_SECONDS`: the database is only slow."""
    try:
        with at_most(session, COUNT_SECONDS):
            found = outbox.standing(session)
    except TookTooLongError:
        return {}
    now = datetime.now(UTC)
    age, parked_age = found.waiting_age, found.parked_age
    return {
        "outbox": found.waiting,
        "outbox_since": None if age is None else now - age,
        "parked": found.parked,
        "parked_since": None if parked_age is None else now - parked_age,
    }


def _emails(session: Session) -> dict[str, Any]:
    """Return the refused emails, or nothing after `COUNT_SECONDS`."""
    try:
        with at_most(session, COUNT_SECONDS):
            return {"emails": order_flow.refusals(session)}
    except TookTooLongError:
        return {}


def _failure(error: SQLAlchemyError) -> dict[str, Any]:
    cause = getattr(error, "orig", None) or error
    reason = " ".join(str(cause).split())[:300] or type(cause).__name__
    return {"database_error": reason, "is_read_only": is_read_only(error)}
