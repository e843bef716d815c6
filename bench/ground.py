"""What a suite stands on: servers of its own, a schema, senders, and processes under test."""

import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from kombu import Connection
from psycopg2.extras import execute_values
from sqlalchemy import Engine, NullPool, create_engine, text

from shared.bus.broker import declaration, queue_counts
from shared.db.models import Base
from shared.http import direct
from shared.ids import new_id
from shared.security import webhook_keys
from stack.folders import ROOT
from stack.processes import Process, spawn, stop
from stack.servers import data, debian
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Address, Port
from stack.servers.sources import Servers, servers
from stack.supervisor import MODULES
from stack.system import prepare

SENDERS = 64
PATIENCE = 60.0  # seconds until something that must happen counts as not happening


@dataclass
class Ground:
    """A suite's own servers, with the schema and the topology in place.

    Attributes:
        servers: RabbitMQ and PostgreSQL, which sync to disk as in production.
        engine: PostgreSQL, as its administrator.
        folder: for files of the suite.
        keys: the webhook secrets of businesses that may send.
    """

    servers: Servers
    engine: Engine
    folder: Path
    keys: list[str] = field(default_factory=list)
    _processes: list[Process] = field(default_factory=list)
    _ports: dict[int, Port] = field(default_factory=dict)  # by process id

    def beside(self, name: str) -> "Ground":
        """Another database and another virtual host on the same servers, with the same senders."""
        broker, database = self.servers.broker, self.servers.database
        if broker is None or database is None:
            raise RuntimeError("the benchmarks need servers of their own: unset AMQP_URL")
        database.execute(f"CREATE DATABASE {name} TEMPLATE order_fellow")
        broker.admit(("/", name))
        there = replace(self.servers, amqp_url=broker.url(name), database_url=database.url(name))
        with Connection(there.amqp_url) as connection:
            declaration.declare(connection)
        engine = create_engine(there.database_url, poolclass=NullPool)
        return replace(self, servers=there, engine=engine)

    def start(
        self,
        *arguments: object,
        environment: Mapping[str, object] | None = None,
        python: str = sys.executable,
        listens: Port | None = None,
    ) -> Process:
        """Start a Python program; it ends with the suite.

        Args:
            arguments: its arguments, as `str()` gives them.
            environment: variables beside ours, likewise.
            python: what runs it.
            listens: where it listens when this returns: on another port than before when somebody
                had taken that. It is held until the program is stopped.
        """
        log = self.folder / f"{len(self._processes)}.log"

        def start() -> Process:
            own = {name: str(value) for name, value in (environment or {}).items()}
            command = (python, *(str(argument) for argument in arguments))
            return spawn(command, environment=os.environ | own, log=log, directory=ROOT)

        if listens is None:
            process = start()
        else:
            name = " ".join(str(argument) for argument in arguments[:2])
            process = Start(name, start, (listens,), log, LISTEN_SECONDS).wait()
            self._ports[process.pid] = listens
        self._processes.append(process)
        return process

    def start_service(
        self, name: str, *, listens: Port | None = None, **settings: object
    ) -> Process:
        """Start a service of Order Fellow as itself, with settings beside the default ones."""
        environment = {**self.servers.for_service(name), **settings}
        return self.start("-m", MODULES[name], environment=environment, listens=listens)

    def start_ingress(self, *, workers: int = 1, look_every: float = 0.05) -> tuple[str, Process]:
        """Start the ingress, and wait until it is ready; returns its address without a prefix."""
        port = Port()
        process = self.start_service("ingress", listens=port, PORT=port, WEB_CONCURRENCY=workers)
        url = str(Address(port))
        until(
            lambda: b'"ready"' in fetch(f"{url}/readyz"),
            "the ingress is ready",
            look_every=look_every,
        )
        return url, process

    def stop(self, process: Process) -> None:
        """Stop a program."""
        stop(process, 15)
        self._processes.remove(process)
        self._ports.pop(process.pid, None)

    def stop_all(self) -> None:
        """Stop every program."""
        for process in list(self._processes):
            self.stop(process)

    def depth(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        with Connection(self.servers.amqp_url) as connection:
            return queue_counts.of(connection.default_channel, queue).ready

    def purge(self, *queues: str) -> None:
        """Remove what is ready in queues."""
        with Connection(self.servers.amqp_url) as connection:
            for queue in queues:
                connection.default_channel.queue_purge(queue)

    def count(self, table: str) -> int:
        """How many rows a table has."""
        with self.engine.connect() as connection:
            return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    def orders_since(self, mark: UUID) -> int:
        """How many orders have a later id."""
        with self.engine.connect() as connection:
            return int(
                connection.scalar(text("SELECT count(*) FROM orders WHERE id > :mark"),
                                  {"mark": mark}) or 0
            )  # fmt: skip

    def empty(self, *tables: str) -> None:
        """Remove all rows of tables."""
        with self.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(tables)}"))

    def add_senders(self, count: int) -> None:
        """Make businesses whose KYC is approved, each with a secret."""
        ids = [new_id() for _ in range(count)]
        raws = [webhook_keys.generate() for _ in ids]
        keys = [webhook_keys.encode_key(raw) for raw in raws]
        expires_at = datetime.now(UTC) + timedelta(days=80)
        with self.engine.begin() as connection:
            driver = connection.connection.driver_connection
            if driver is None:
                raise RuntimeError("no connection")
            with driver.cursor() as cursor:
                execute_values(
                    cursor,
                    "INSERT INTO accounts (id, company_name, email, password_hash) VALUES %s",
                    [(str(id_), "Kettle & Co", f"{id_}@kettle.example", "-") for id_ in ids],
                )
                execute_values(
                    cursor,
                    "INSERT INTO kyc_applications (id, account_id, business_registration_number, "
                    "business_address, contact_person_details, status) VALUES %s",
                    [
                        (str(new_id()), str(id_), str(id_), "1 Broad St", '"Ada"', "approved")
                        for id_ in ids
                    ],
                )
                execute_values(
                    cursor,
                    "INSERT INTO webhook_secrets (id, account_id, key_hash, sealed, state, "
                    "expires_at) VALUES %s",
                    [
                        (str(secret_id), str(id_), webhook_keys.key_hash(key.encode()),
                         webhook_keys.seal(raw, secret_id), "active", expires_at)
                        for id_, raw, key in zip(ids, raws, keys, strict=True)
                        for secret_id in (new_id(),)
                    ],
                )  # fmt: skip
        self.keys += keys

    def accounts(self) -> list[UUID]:
        """The ids of all businesses."""
        with self.engine.connect() as connection:
            return list(connection.execute(text("SELECT id FROM accounts")).scalars())

    def vacuum(self) -> None:
        """Let PostgreSQL know what its tables hold, as autovacuum does in time."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
            connection.execute(text("CHECKPOINT"))

    def owners(self) -> dict[str, UUID]:
        """The business of each key."""
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT key_hash, account_id FROM webhook_secrets"))
            owners = {bytes(row.key_hash): row.account_id for row in rows}
        return {key: owners[webhook_keys.key_hash(key.encode())] for key in self.keys}

    def secrets_file(self) -> Path:
        """For the peers: a JSON object from each key to its account's id."""
        path = self.folder / "secrets.json"
        path.write_text(json.dumps({key: str(id_) for key, id_ in self.owners().items()}))
        return path


def need(*programs: tuple[str, str]) -> None:
    """Install programs where they are not there, or end with a sentence.

    Args:
        programs: each with its Debian package.
    """
    missing = [package for program, package in programs if shutil.which(program) is None]
    if missing:
        if not debian.can_install():
            sys.exit(f"Install {', '.join(missing)}: apt-get install {' '.join(missing)}")
        try:
            debian.install(*missing)
        except debian.InstallError as error:
            sys.exit(str(error))


@contextmanager
def ground(
    *programs: tuple[str, str], environment: Mapping[str, str] | None = None
) -> Iterator[Ground]:
    """Servers and all, for as long as the context lasts.

    Args:
        programs: what must be installed beside the servers; see `need`.
        environment: variables for the servers, which are then none in containers.
    """
    need(*programs)
    folder = data.throwaway("benchmark", durable=True)
    try:
        with servers("bench", environment) as running:
            if running.broker is not None:
                running.broker.admit()
            prepare(running.amqp_url, running.database_url)
            # A database that is copied must have no connections.
            engine = create_engine(running.database_url, poolclass=NullPool)
            made = Ground(running, engine, folder)
            made.add_senders(SENDERS)
            try:
                yield made
            finally:
                made.stop_all()
                engine.dispose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(
    look: Callable[[], object], what: str, seconds: float = PATIENCE, *, look_every: float = 0.05
) -> None:
    """Wait until `look` finds something true.

    Raises:
        TimeoutError: it did not.
    """
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(look_every)


def fetch(url: str) -> bytes:
    """The body behind an address; nothing while nobody answers."""
    try:
        with direct.ask(url, seconds=5) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        return error.read()
    except OSError:
        return b""


def tables() -> Sequence[str]:
    """The tables that orders fill."""
    return [
        name
        for name in Base.metadata.tables
        if name in ("orders", "order_status_history", "inbox", "outbox", "email_deliveries")
    ]
