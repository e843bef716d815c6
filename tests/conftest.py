"""Fixtures: real servers for the session; a database and a virtual host for each test."""

import os

from tests import environment

# Before the next line: some of these read it when they are imported.
environment.drop_others(os.environ)

import functools
import gc
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import hypothesis
import pytest
from httpx._transports import default
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

import shared.config.loading as config
from services.ops.broker import queue_lock
from shared import gc_tuning
from shared.db import migrate, session
from shared.security import encryption, tracking, unsubscribe_tokens
from stack.folders import hold_venv
from stack.mailbox import MailServer
from stack.processes import stop_on_signals
from stack.servers import credentials
from stack.servers.ports import Port
from stack.servers.sources import Broker, Database, Servers, servers
from tests.vhosts import Vhosts

pytest_plugins = ["tests.all_ran"]

# How long an example takes, or to make one, says how busy the machine is. New examples each time,
# in CI too, whose own profile has the same for ever.
hypothesis.settings.register_profile(
    "order-fellow",
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("order-fellow")

_numbers = itertools.count()


def pytest_configure() -> None:
    """Let SIGTERM stop what runs, as Ctrl-C does."""
    gc.set_threshold(gc_tuning.YOUNG)  # of what is imported nothing is garbage
    stop_on_signals()
    hold_venv()
    # Each client would read the certificates of all authorities, to speak without TLS to servers
    # of ours: nine tenths of what a short request costs.
    default.create_ssl_context = functools.cache(default.create_ssl_context)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run first the files that may take longest, so that no process has one of them left alone."""

    def longest(item: pytest.Item) -> float:
        mark = item.get_closest_marker("timeout")
        return float(mark.args[0]) if mark else 0.0

    by_file: dict[Path, float] = {}
    for item in items:
        by_file[item.path] = max(longest(item), by_file.get(item.path, 0.0))
    items.sort(key=lambda item: -by_file[item.path])


def pytest_collection_finish() -> None:
    """Keep what the tests' modules hold out of the garbage collector's sight."""
    gc_tuning.freeze()


@pytest.fixture(scope="session")
def test_servers() -> Iterator[Servers]:
    """RabbitMQ and PostgreSQL of our own; what cannot get them fails, and is not skipped."""
    with servers("test") as running:
        yield running


@pytest.fixture(scope="session")
def broker(test_servers: Servers) -> Broker:
    assert test_servers.broker is not None
    return test_servers.broker


@pytest.fixture(scope="session")
def database(test_servers: Servers) -> Database:
    assert test_servers.database is not None
    return test_servers.database


@pytest.fixture(scope="session")
def template(database: Database) -> Callable[[], str]:
    """The name of a migrated database to copy, which is quicker than to migrate each.

    Another one each day (UTC), since a migration makes the partitions of its own day.
    """

    @functools.cache
    def made(name: str) -> str:
        database.execute(f"CREATE DATABASE {name}")
        url = database.url(name)
        migrate.upgrade(url, credentials.passwords(url))
        return name

    return lambda: made(f"template_{datetime.now(UTC):%Y%m%d}")


@pytest.fixture(scope="session")
def vhosts(broker: Broker) -> Vhosts:
    return Vhosts(broker)


def an_amqp_url(broker: Broker, vhosts: Vhosts) -> Iterator[str]:
    """A broker with the topology and nothing else, for as long as a fixture lasts."""
    name = vhosts.take()
    yield broker.url(name)
    vhosts.give_back(name)


amqp_url = pytest.fixture(an_amqp_url, name="amqp_url")
module_amqp_url = pytest.fixture(an_amqp_url, name="module_amqp_url", scope="module")


@pytest.fixture
def bare_amqp_url(broker: Broker, vhosts: Vhosts) -> Iterator[str]:
    """A broker with nothing on it."""
    name = vhosts.take_bare()
    yield broker.url(name)
    vhosts.give_back(name)


def a_database_url(database: Database, template: Callable[[], str]) -> Iterator[str]:
    """A migrated database with nothing in it, for as long as a fixture lasts."""
    name = f"test{next(_numbers)}"
    # To copy the files is quicker than to log every page, where nothing is synced to disk.
    database.execute(f"CREATE DATABASE {name} TEMPLATE {template()} STRATEGY file_copy")
    yield database.url(name)
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


database_url = pytest.fixture(a_database_url, name="database_url")
module_database_url = pytest.fixture(a_database_url, name="module_database_url", scope="module")


@pytest.fixture
def unused_port() -> Iterator[Callable[[], int]]:
    """Ports that nobody listens on until the test ends, unless the test does."""
    held: list[Port] = []

    def hold() -> int:
        held.append(Port())
        return held[-1].number

    yield hold
    for port in held:
        port.release()


Configure = Callable[..., config.Settings]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Set environment variables and make this process read its settings anew."""

    def forget() -> None:
        for made in (session._sessions, session._independent_sessions):
            if made.cache_info().currsize:
                made().kw["bind"].dispose()
        if session.engine.cache_info().currsize:
            session.engine().dispose()
        for cached in (
            config.settings,
            encryption.sealer,
            encryption.code_sealer,
            encryption.second_factor_sealer,
            unsubscribe_tokens.unsubscribe_tokens,
            encryption.portal_sealer,
            tracking.keys,
            session.engine,
            session._sessions,
            session._independent_sessions,
        ):
            cached.cache_clear()
        # A command that ran in this process met others in its own database, or found it away.
        queue_lock._lock_database, queue_lock._away_until = session.engine, 0.0
        while queue_lock._engines:
            queue_lock._engines.popitem()[1].dispose()

    def apply(**variables: str) -> config.Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name.upper(), value)
        forget()
        return config.settings()

    yield apply
    forget()


@pytest.fixture
def service() -> str | None:
    """As whom this process signs in: a service under test says so; else as the administrator."""
    return None


@pytest.fixture
def settings(
    configure: Configure, amqp_url: str, database_url: str, service: str | None
) -> config.Settings:
    """Settings of this process that point to a broker and a database of this test's own."""
    urls = {"amqp_url": amqp_url, "database_url": database_url}
    if service is not None:
        urls = {name: credentials.as_service(url, service) for name, url in urls.items()}
    return configure(**urls, environment="test")


@pytest.fixture
def engine(settings: config.Settings, database_url: str) -> Iterator[Engine]:
    """For looking into the database from outside, as its administrator."""
    made = create_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def db(engine: Engine) -> Iterator[Session]:
    """A session for looking, and for arranging; commit what others must see."""
    with Session(engine, expire_on_commit=False) as opened:
        yield opened


@pytest.fixture
def mailbox(tmp_path: Path) -> Iterator[MailServer]:
    """A mail server; `mailbox.handler.respond` refuses recipients."""
    server = MailServer(tmp_path / "mailbox")
    server.start()
    yield server
    server.stop()
