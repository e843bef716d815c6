"""A whole system whose every part can be broken, and a sender that never stops."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from rich.console import Console
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from stack.mailbox import MailServer
from stack.servers import data
from stack.servers.credentials import as_service
from stack.servers.ports import Address, Port
from stack.servers.sources import Broker, Database
from stack.supervisor import MODULES, Supervisor
from stack.system import prepare, start_services
from tests.faults.ledger import LANES, OF_SHOPIFY, Balance, Load, settle
from tests.integration.arrange import (
    PATIENCE,
    access_token,
    account,
    depth,
    until,
)
from tests.integration.gate import Gate

TEST_SECONDS = 1800  # bounds a hang; `until` and `settle` say sooner what has not come
MINUTES = float(os.environ.get("FAULTS_MINUTES", "0"))
"""With a number here each case goes on for as many minutes: a soak."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder the time that their backlogs may take, after an outage too."""
    for item in items:
        ours = item.path.is_relative_to(Path(__file__).parent)
        if ours and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS + 300 * MINUTES))


@dataclass
class Stand:
    """A running system under test.

    Attributes:
        supervisor: its processes; restarted at once when they die.
        broker: RabbitMQ, to be stopped and killed.
        database: PostgreSQL, to be stopped and killed.
        bus: the way to RabbitMQ where there is one node, to be cut and stalled.
        books: the way to PostgreSQL.
        mail: where emails land.
        amqp_url: RabbitMQ, past the gate; of a cluster all nodes.
        engine: PostgreSQL, past the gate.
        url: the ingress.
        account_id: a business that may send.
        bearer: by which it signs in.
        secret: its webhook secret.
        signing_secret: the same, in the other form.
        rng: of this run; its seed is printed.
        own: what a service signs in by.
    """

    supervisor: Supervisor
    broker: Broker
    database: Database
    bus: Gate
    books: Gate
    mail: MailServer
    amqp_url: str
    engine: Engine
    url: str
    account_id: UUID
    bearer: dict[str, str]
    secret: str
    signing_secret: str
    rng: random.Random
    own: Callable[[str], dict[str, object]]

    def load(self, **changes: float) -> Load:
        return Load(self.url, self.secret, account_id=self.account_id, **changes)

    def workers(self) -> list[int]:
        """The ingress's worker processes."""
        master = self.supervisor.pid("ingress")
        if master is None:
            return []
        children = Path(f"/proc/{master}/task/{master}/children")
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            return [int(pid) for pid in children.read_text().split()]
        return []

    def kill_worker(self) -> bool:
        """Kill one of the ingress's workers; False where there is none, as without a master."""
        alive = self.workers()
        if not alive:
            return False
        with suppress(ProcessLookupError):  # it has ended with its master
            os.kill(self.rng.choice(alive), signal.SIGKILL)
            return True
        return False

    def add_another(self, name: str) -> None:
        """Start a second process of a service."""
        self.supervisor.add(f"{name} 2", MODULES[name], environment=self.own(name))

    def move_books(self, url: str) -> None:
        """Look into another database from now on."""
        self.engine.dispose()
        self.engine = create_engine(url, pool_pre_ping=True)

    def go_on(self, seconds: float) -> None:
        """Let time pass, restarting what has died."""
        deadline = time.monotonic() + max(seconds, 0.05)
        while time.monotonic() < deadline:
            self.supervisor.watch()
            time.sleep(0.05)

    def go_on_until(self, look: Callable[[], object], what: str) -> None:
        """Let time pass, restarting what has died, until `look` finds something true."""

        def found() -> object:
            self.go_on(0.1)
            return look()

        until(found, what)

    def repeat(self, seconds: float, step: Callable[[], None]) -> None:
        """Do something again and again, for some seconds or, in a soak, for minutes."""
        deadline = time.monotonic() + max(seconds, MINUTES * 60)
        while time.monotonic() < deadline:
            step()

    def ready(self) -> None:
        """Wait until the ingress says that everything is fine, in both workers."""

        def look() -> bool:
            self.supervisor.watch()
            # Each on a connection of its own, which either worker may take. None is stopped for it,
            # as by `by_each_worker`: the load goes on.
            return all(self._is_ready() for _ in range(12))

        until(look, "ready again")

    def _is_ready(self) -> bool:
        answer = httpx.get(f"{self.url}/readyz", timeout=20)
        return bool(answer.json()["status"] == "ready")

    def settle(self, load: Load) -> Balance:
        """Wait for the backlog and compare; nothing may be left in a dead queue."""
        self.ready()
        try:
            balance = settle(
                load, self.engine, self.amqp_url, self.mail.maildir, self.supervisor.watch
            )
        except AssertionError as error:
            waiting = [f"{queue}{end}" for queue in LANES for end in ("", ".dead")]
            error.add_note(str({queue: depth(self.amqp_url, queue) for queue in waiting}))
            raise
        for queue in LANES:
            assert depth(self.amqp_url, f"{queue}.dead") == 0, queue
        return balance


@pytest.fixture(scope="module")
def service_environment() -> Callable[[str], dict[str, str]]:
    """By service, what those of a module's stand are configured by beside what all are."""
    return lambda _: {}


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL, which runs as another user, can get to."""
    folder = data.throwaway("faults")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def bus_urls(module_amqp_url) -> list[str]:
    """The nodes of the broker of a module's stand; several are used past any gate."""
    return [module_amqp_url]


@pytest.fixture(scope="module")
def books_url(module_database_url) -> str:
    """The database of a module's stand."""
    return module_database_url


@pytest.fixture(scope="module")
def stand(
    broker, database, bus_urls, books_url, tmp_path_factory, service_environment
) -> Iterator[Stand]:
    folder: Path = tmp_path_factory.mktemp("stand")
    seed = int(os.environ.get("FAULTS_SEED", random.randrange(10**6)))
    print(f"FAULTS_SEED={seed}")
    mail = MailServer(folder / "mailbox")
    mail.start()
    port, ops_port, portal_port = Port(), Port(), Port()
    amqp_url = ";".join(bus_urls)
    with Gate(bus_urls[0]) as bus, Gate(books_url) as books:
        environment = {
            "SMTP_PORT": str(mail.port),
            "SMTP_TIMEOUT": "3",
            "WEB_CONCURRENCY": "2",
            "ADDRESS_REFUSALS_PER_MINUTE": "1000000",
        }

        def own(name: str) -> dict[str, object]:
            return {
                "PORT": port,
                "OPS_PORT": ops_port,
                "PORTAL_PORT": portal_port,
                "AMQP_URL": as_service(bus.url if len(bus_urls) == 1 else amqp_url, name),
                "DATABASE_URL": as_service(books.url, name),
            } | service_environment(name)

        prepare(amqp_url, books_url)
        supervisor = Supervisor(environment, folder / "logs", Console(quiet=True), 0.2)
        engine = create_engine(books_url, pool_pre_ping=True)
        try:
            listening = {"ingress": port, "ops": ops_port, "portal": portal_port}
            start_services(supervisor, own, listening)
            with Session(engine, expire_on_commit=False) as session:
                business = account(session, status="approved")
            found = Stand(
                supervisor,
                broker,
                database,
                bus,
                books,
                mail,
                amqp_url,
                engine,
                str(Address(port)),
                business.id,
                {"Authorization": f"Bearer {access_token(business.id)}"},
                "",
                "",
                random.Random(seed),
                own,
            )
            found.ready()
            secret = f"{found.url}/api/v1/webhook/secret/"
            with httpx.Client(headers=found.bearer, timeout=PATIENCE) as signed_in:
                shown = signed_in.post(secret).json()
                signed_in.put(f"{secret}shopify/", json={"secret": OF_SHOPIFY}).raise_for_status()
            found.secret, found.signing_secret = shown["secret_key"], shown["signing_secret"]
            yield found
        finally:
            supervisor.stop()
            engine.dispose()
            mail.stop()


@pytest.fixture(autouse=True)
def whole(stand: Stand) -> None:
    """Each case begins with everything running."""
    stand.ready()


def pytest_terminal_summary(terminalreporter) -> None:
    """The seeds, and each case's ledger, doubles counted."""
    terminalreporter.section("ledgers")
    for report in terminalreporter.getreports("passed"):
        for line in report.capstdout.splitlines():
            if line.startswith(("ledger:", "FAULTS_SEED", "fellow journal")):
                terminalreporter.write_line(f"{report.nodeid.rpartition('/')[2]} {line}")
