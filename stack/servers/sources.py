"""The sources of RabbitMQ and PostgreSQL.

In this order: for `make run` only, the servers of `AMQP_URL` and `DATABASE_URL`; containers, if a
Docker daemon answers and has the images or can pull them; private nodes of the machine's packages,
which are installed first where that is possible (root with apt); else an error with one sentence.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from shared import lease
from stack.folders import hold_venv
from stack.processes import stop_on_signals
from stack.servers import data, debian, postgres, rabbitmq
from stack.servers.credentials import as_service, broker_user
from stack.servers.ports import Port

OTHERS = " or start Docker; `make run` also takes servers of yours, by AMQP_URL and DATABASE_URL"


class NoServersError(Exception):
    """There is no way to get the servers here; the message says what would help."""


class Server(Protocol):
    """What both have in common, wherever they run; see `rabbitmq.py` and `postgres.py`."""

    @property
    def ports(self) -> Sequence[Port]:
        """All that it needs; certain once it has been started."""

    @property
    def is_running(self) -> bool:
        """Whether it is there: started, and not ended by whoever it was."""

    def launch(self) -> None:
        """Start without waiting."""

    def wait(self) -> None:
        """Wait until it answers."""

    def start(self) -> None:
        """Both; on the same ports as before."""

    def stop(self) -> None:
        """Stop cleanly."""

    def close(self) -> None:
        """Stop for good."""

    def kill(self) -> None:
        """SIGKILL."""


class Broker(Server, Protocol):
    """RabbitMQ."""

    @property
    def management_url(self) -> str:
        """The management API, when it has one."""

    def url(self, vhost: str = "") -> str:
        """The address of a virtual host."""

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl."""

    def evaluate(self, expression: str) -> str:
        """Evaluate an Erlang expression in the node; returns the value, printed."""

    def admit(self, vhosts: Sequence[str] = ("/",)) -> None:
        """Make the services' users and virtual hosts for them."""


class Database(Server, Protocol):
    """PostgreSQL."""

    def url(self, database: str = "order_fellow") -> str:
        """The SQLAlchemy address of a database."""

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser."""

    def dump(self, database: str) -> None:
        """Back a database up, by pg_dump."""

    def restore(self, database: str) -> None:
        """Put it back as it was then, whatever has become of it."""

    def pause(self) -> None:
        """Have it keep its connections and do nothing, as `docker pause` does."""

    def unpause(self) -> None:
        """Have it go on."""


@dataclass(frozen=True)
class Servers:
    """The two servers.

    Attributes:
        amqp_url: where RabbitMQ is.
        database_url: where PostgreSQL is.
        broker: RabbitMQ, when it is ours to stop and to kill.
        database: PostgreSQL, when it is ours.
        origin: where they come from, in words.
    """

    amqp_url: str
    database_url: str
    broker: Broker | None
    database: Database | None
    origin: str

    def for_service(self, service: str) -> dict[str, str]:
        """What a service finds the servers by: as itself, where we may make users for it.

        On a server that somebody has named everybody is who its address says.
        """
        return {
            "AMQP_URL": (
                as_service(self.amqp_url, broker_user(service)) if self.broker else self.amqp_url
            ),
            "DATABASE_URL": (
                as_service(self.database_url, service) if self.database else self.database_url
            ),
        }

    def watch(self, say: Callable[[str], object]) -> None:
        """Start again what has ended; called again and again.

        Args:
            say: is told of it.

        Raises:
            stack.servers.listening.DidNotStartError: it does not; with the end of its log.
        """
        for name, server in (("RabbitMQ", self.broker), ("PostgreSQL", self.database)):
            if server is not None and not server.is_running:
                say(f"{name} has ended; starting it again, with what it keeps")
                server.start()


@contextmanager
def servers(
    purpose: Literal["run", "demo", "test", "bench"], environment: Mapping[str, str] | None = None
) -> Iterator[Servers]:
    """The servers, for as long as the context lasts.

    Args:
        purpose: whose they are; those of `run` may be named, or keep their data. The others are
            always new and thrown away, for demo, tests and bench make up and empty whatever they
            find. Those of `bench` sync to disk all the same, as in production.
        environment: variables that both are started with; they are none in containers then.

    Raises:
        NoServersError: there is no way to get them.
    """
    keep = purpose == "run"
    named = os.environ if keep else {}
    amqp_url, database_url = named.get("AMQP_URL"), named.get("DATABASE_URL")
    if amqp_url and database_url:
        yield Servers(amqp_url, database_url, None, None, "AMQP_URL and DATABASE_URL")
        return
    durable = keep or purpose == "bench"
    try:
        folder = _kept() if keep else data.throwaway(purpose, durable=durable)
    except data.ForeignFolderError as error:
        raise NoServersError(str(error)) from None
    with ExitStack() as ending:  # each is closed, even if closing another one fails
        if not keep:
            ending.callback(shutil.rmtree, folder, ignore_errors=True)
        broker, database, origin = make(
            folder, keep=keep, durable=durable, needs_broker=not amqp_url, environment=environment
        )
        used: list[Server] = []
        used += [] if amqp_url else [broker]
        used += [] if database_url else [database]
        if not database_url:
            postgres.forget_defaults(os.environ)
        for server in reversed(used):
            ending.callback(server.close)
        for server in used:
            server.launch()
        for server in used:
            server.wait()
        yield Servers(
            amqp_url or broker.url(),
            database_url or database.url(),
            None if amqp_url else broker,
            None if database_url else database,
            f"{name} and, for the other, {origin}" if (name := _named(named)) else origin,
        )


def _named(environ: Mapping[str, str]) -> str:
    return next((name for name in ("AMQP_URL", "DATABASE_URL") if environ.get(name)), "")


def make(
    folder: Path,
    *,
    keep: bool = False,
    durable: bool = False,
    needs_broker: bool = True,
    management: bool = False,
    environment: Mapping[str, str] | None = None,
) -> tuple[Broker, Database, str]:
    """A broker and a database that are not started yet, and where they come from, in words.

    Args:
        folder: for their data, held by a lease.
        keep: whether the data are kept; the folder is one on which nobody else is at work.
        durable: whether the database syncs to disk.
        needs_broker: whether the broker will be started.
        management: whether it has the management API.
        environment: variables that both are started with, which are none in containers then.

    Raises:
        NoServersError: there is no way to get them.
    """
    if not environment and _containers_are_available():
        from stack.servers import containers

        owner = data.owner()
        containers.remove_abandoned(owner, folder if keep else None)
        if keep:
            _mark_kept(folder / "docker", folder / "postgres", "private nodes")
        return (
            containers.RabbitMQContainer(owner, folder, keep=keep, management=management),
            containers.PostgreSQLContainer(owner, folder, keep=keep),
            "Docker",
        )
    install_missing(needs_broker=needs_broker, others=OTHERS)
    if keep:
        _mark_kept(folder / "postgres", folder / "docker", "Docker")
    return (
        rabbitmq.RabbitMQ(folder / "rabbitmq", management=management, environment=environment),
        postgres.PostgreSQL(folder / "postgres", durable=durable, environment=environment),
        "private nodes of this machine's own packages",
    )


def _mark_kept(ours: Path, others: Path, whose: str) -> None:
    """Say that there are data which are not used this time: somebody may miss them."""
    ours.mkdir(parents=True, exist_ok=True)
    if others.exists():
        print(f"What was kept with the servers from {whose} is there, and not used this time.")


def install_missing(*, needs_broker: bool = True, others: str = "") -> None:
    """Install the packages of private nodes, where they are not there.

    What only a private node can be (one of a cluster, a standby) begins with this.

    Args:
        needs_broker: whether RabbitMQ is needed.
        others: what would do instead of the packages, for the error.

    Raises:
        NoServersError: they cannot be installed here.
    """
    missing = _missing(needs_broker=needs_broker)
    said = ""
    if missing and debian.can_install():
        try:
            debian.install(*missing)
        except debian.InstallError as error:
            said = f"\n{error}"
        missing = _missing(needs_broker=needs_broker)
    if missing:
        raise NoServersError(
            f"{' and '.join(missing)} cannot be found here. Install them "
            f"(Debian, Ubuntu: apt-get install {' '.join(missing)}){others}.{said}"
        )


def _missing(*, needs_broker: bool) -> list[str]:
    """The packages of private nodes that are not there."""
    missing = []
    if needs_broker and not rabbitmq.is_installed():
        missing.append("rabbitmq-server")
    if postgres.programs() is None:
        missing.append("postgresql")
    return missing


def _containers_are_available() -> bool:
    if not data.docker_is_there():
        return False
    # Slow to import, and most machines go without.
    from stack.servers import containers

    return containers.are_available()


def _kept() -> Path:
    folder = data.kept()
    try:
        lease.take(folder)
        # systemd-tmpfiles(8) removes nothing in a folder that is locked itself.
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except lease.LeasedError as error:
        raise NoServersError(f"{error}: stop it first") from None
    return folder


def main() -> int:
    """`python -m stack.servers [--private]`: get the servers of the tests, or of the faults.

    The faults need private nodes, for clusters and standbys, also where Docker is available.
    """
    stop_on_signals()
    hold_venv()
    try:
        if sys.argv[1:] == ["--private"]:
            install_missing()
        elif not _containers_are_available():
            install_missing(others=OTHERS)
    except NoServersError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
