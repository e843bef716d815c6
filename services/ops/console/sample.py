"""What the overview is made of: one look at the broker and at the database."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from kombu import Connection
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.ops import flow, queues
from shared.bus.connect import connect
from shared.config import Settings
from shared.db.session import transaction

TIMEOUT = 3.0  # seconds, for either server


@dataclass(frozen=True, slots=True)
class Server:
    """How one of the two servers is.

    Attributes:
        name: which.
        is_well: whether it answered.
        detail: its version, or what it said instead of an answer.
        seconds: how long it took.
    """

    name: str
    is_well: bool
    detail: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Books:
    """What the database tells."""

    counters: flow.Counters
    latency: flow.Latency
    outbox: flow.Outbox


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        at: when.
        broker: how it is.
        database: how it is.
        queues: every queue; empty while the broker is away.
        books: None while the database is away.
    """

    at: datetime
    broker: Server
    database: Server
    queues: tuple[queues.Depth, ...] = ()
    books: Books | None = None


class Looker:
    """Takes samples, over a connection to the broker that it keeps.

    Args:
        config: where the servers are.
    """

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._connection: Connection | None = None

    def take(self) -> Sample:
        """Look once; a server that is away is part of what is seen."""
        at = datetime.now(UTC)
        figures: list[queues.Depth] = []
        books: list[Books] = []
        broker = _visited("broker", lambda: self._look_at_broker(figures))
        if not broker.is_well:
            self.close()
        database = _visited("database", lambda: _look_at_database(books))
        return Sample(at, broker, database, tuple(figures), books[0] if books else None)

    def close(self) -> None:
        """Let go of the broker; the next look connects anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    def _look_at_broker(self, figures: list[queues.Depth]) -> str:
        if self._connection is None:
            self._connection = connect(
                self._config.amqp_url,
                timeout=TIMEOUT,
                transport_options={"read_timeout": TIMEOUT, "write_timeout": TIMEOUT},
            )
            self._connection.connect()
        figures += queues.depths(self._connection)
        known = self._connection.connection.server_properties
        return f"{known.get('product', 'broker')} {known.get('version', '')}"


def _look_at_database(books: list[Books]) -> str:
    with transaction() as session:
        books.append(Books(flow.counters(session), flow.latency(session), flow.outbox(session)))
        return _version(session)


def _version(session: Session) -> str:
    return f"PostgreSQL {session.scalar(text('SHOW server_version'))}".split(" (")[0]


def _visited(name: str, look: Callable[[], str]) -> Server:
    started = time.monotonic()
    try:
        detail, is_well = look(), True
    except Exception as error:  # noqa: BLE001 - whatever it was, that is how the server is
        detail, is_well = _sentence(error), False
    return Server(name, is_well, detail, time.monotonic() - started)


def _sentence(error: Exception) -> str:
    """One line without addresses or statements."""
    said = getattr(error, "orig", None) or error
    first = (str(said).strip().splitlines() or [""])[0]
    return f"{type(said).__name__}: {first}"[:200]
