"""The servers in containers, by testcontainers, with the images of docker-compose.yml."""

import contextlib
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker
import httpx
import psycopg2
from amqp.exceptions import AMQPError
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from kombu import Connection
from testcontainers.core.container import DockerContainer

from stack.servers import data
from stack.servers.credentials import admission
from stack.servers.listening import DidNotStartError
from stack.servers.ports import Port
from stack.servers.postgres import MAX_CONNECTIONS, execute

READY_SECONDS = 90.0
MANAGEMENT = 15672
_PORT_TAKEN = re.compile("already allocated|already in use")
OWNER, FOLDER = "order-fellow.checkout", "order-fellow.folder"  # labels
COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"

# testcontainers' own helper container would be one more image to pull; everything is stopped here.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


def image(service: str) -> str:
    """The image that docker-compose.yml names for a service, so that it stands in one place."""
    found = re.search(rf"^  {service}:\n    image: (\S+)", COMPOSE.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"docker-compose.yml names no image for {service}")
    return found[1]


def are_available() -> bool:
    """Whether a Docker daemon answers and has both images, or can pull them."""
    try:
        client = docker.from_env(timeout=10)
        client.ping()
    except DockerException:
        return False
    for name in (image("rabbitmq"), image("postgres")):
        try:
            client.images.get(name)
        except ImageNotFound:
            print(f"Pulling {name}", flush=True)
            try:
                client.images.pull(name)
            except DockerException as error:
                print(f"Docker cannot pull {name}: {error}", flush=True)
                return False
        except DockerException:
            return False
    return True


def remove_abandoned(owner: str) -> None:
    """Remove the containers of runs that were killed: a container does not end with its maker.

    Nothing where there is no Docker. Several may do it at once.

    Args:
        owner: the checkout that they were made by.
    """
    mine = {"label": f"{OWNER}={owner}"}
    try:
        with contextlib.closing(docker.from_env(timeout=30)) as client:
            for found in client.containers.list(all=True, filters=mine, ignore_removed=True):
                if not data.is_held(Path(found.labels.get(FOLDER, "/nowhere"))):
                    _remove(found)
    except DockerException as error:
        print(f"Docker keeps containers of {owner}: {error}", flush=True)


def _remove(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except APIError as error:
        # Gone, or another is at it (Docker Engine API, ContainerDelete).
        if error.status_code not in (404, 409):
            raise


def remove_volumes(owner: str) -> None:
    """Remove what the servers of a checkout keep; nothing where there is no Docker."""
    try:
        with contextlib.closing(docker.from_env(timeout=30)) as client:
            for name in (f"{owner}-rabbitmq", f"{owner}-postgres"):
                with contextlib.suppress(NotFound):
                    client.volumes.get(name).remove()
    except DockerException as error:
        print(f"Docker keeps volumes of {owner}: {error}", flush=True)


class _Server(ABC):
    """What both servers in containers have in common.

    Args:
        owner: the checkout, for finding what it left behind.
        folder: the run's, which it holds for as long as it lives.
        name: the service in docker-compose.yml.
        inside: the ports in the container, the one of its clients first.
        path: where in the container the data are.
        keep: whether they are kept in a volume.
    """

    def __init__(
        self, owner: str, folder: Path, name: str, inside: Sequence[int], path: str, *, keep: bool
    ) -> None:
        # By the port in the container. Held, and not left to Docker to choose: that chooses anew
        # at each start.
        self._ports = {number: Port() for number in inside}
        self._is_known = False
        self._container = DockerContainer(image(name))
        labels = {OWNER: owner, FOLDER: str(folder)}
        # RabbitMQ's node name, and with it its data, follows the host name.
        self._container.with_kwargs(labels=labels, hostname=name)
        if keep:
            self._container.with_volume_mapping(f"{owner}-{name}", path, "rw")

    @property
    def port(self) -> int:
        """Where it listens on loopback; certain once it has been started."""
        return self.ports[0].number

    @property
    def ports(self) -> Sequence[Port]:
        """All that it needs."""
        return list(self._ports.values())

    def start(self) -> None:
        """Start the container, or start it again on the same port, and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the container without waiting for what is in it.

        Raises:
            DidNotStartError: the engine refuses.
        """
        try:
            self._launch()
        except DockerException as error:
            raise DidNotStartError(f"Docker cannot start {type(self).__name__}: {error}") from None

    def _launch(self) -> None:
        if self._is_known:
            self._container.get_wrapped_container().start()
            return
        while True:
            # testcontainers hands this to Docker's SDK, which also takes (address, port); its own
            # method takes a port alone, and that would listen on every address.
            ports: dict[str, Any] = self._container.ports
            for inside, port in self._ports.items():
                ports[str(inside)] = ("127.0.0.1", port.number)
            try:
                self._container.start()
            except APIError as error:
                if not _PORT_TAKEN.search(str(error)):
                    raise
                # A container's ports are fixed when it is made.
                self._container.get_wrapped_container().remove(force=True, v=True)
                for port in self.ports:
                    port.move()
            else:
                self._is_known = True
                return

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            DidNotStartError: it does not.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise DidNotStartError(
                    f"{type(self).__name__} in its container does not answer; the end of its log:\n"
                    f"{self._said()}"
                )
            time.sleep(0.3)

    def _said(self) -> str:
        try:
            log = self._container.get_wrapped_container().logs(tail=20)
        except DockerException as error:
            return str(error)
        return bytes(log).decode(errors="replace")[-2000:]

    def stop(self) -> None:
        """Stop the container; it can be started again."""
        if self._container._container is not None:
            self._container.get_wrapped_container().stop(timeout=8)

    def close(self) -> None:
        """Stop and remove the container; a named volume stays."""
        self.stop()
        self._container.stop()
        for port in self.ports:
            port.release()

    def kill(self) -> None:
        """SIGKILL what runs in the container."""
        self._container.get_wrapped_container().kill()

    def pause(self) -> None:
        """Stop all that runs in the container where it is."""
        self._container.get_wrapped_container().pause()

    def unpause(self) -> None:
        """Have it go on."""
        self._container.get_wrapped_container().unpause()

    @abstractmethod
    def _answers(self) -> bool:
        """Whether what runs in the container is ready."""

    def _run(self, *command: str) -> str:
        code, output = self._container.exec(list(command))
        if code != 0:
            raise RuntimeError(f"{command[0]} failed: {output.decode()[-1000:]}")
        return output.decode()


class RabbitMQContainer(_Server):
    """RabbitMQ; the same methods as `stack.servers.rabbitmq.RabbitMQ`."""

    def __init__(self, owner: str, folder: Path, *, keep: bool, management: bool = False) -> None:
        inside = (5672, MANAGEMENT) if management else (5672,)
        super().__init__(owner, folder, "rabbitmq", inside, "/var/lib/rabbitmq", keep=keep)
        self._container.with_env("RABBITMQ_DEFAULT_USER", "fellow")
        self._container.with_env("RABBITMQ_DEFAULT_PASS", "fellow")

    def url(self, vhost: str = "") -> str:
        """The address of a virtual host; of the default one when it is not named."""
        return f"amqp://fellow:fellow@127.0.0.1:{self.port}/{vhost}"

    @property
    def management_url(self) -> str:
        """The management API."""
        return f"http://127.0.0.1:{self._ports[MANAGEMENT]}"

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl in the container; returns what it printed."""
        return self._run("rabbitmqctl", "--quiet", *arguments)

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node; returns the value, printed."""
        return self.control("eval", f"{expression}.").strip()

    def admit(self, vhosts: Sequence[str] = ("/",), remove: Sequence[str] = ()) -> None:
        """Make the services' users, with their rights in virtual hosts, which are made as well."""
        self.evaluate(admission(self.url(), vhosts, remove))

    def _answers(self) -> bool:
        try:
            with Connection(self.url(), connect_timeout=2) as connection:
                connection.connect()
            if MANAGEMENT in self._ports:
                httpx.get(self.management_url, timeout=2, trust_env=False)
        except (OSError, AMQPError, httpx.HTTPError):
            return False
        return True


class PostgreSQLContainer(_Server):
    """PostgreSQL; the same methods as `stack.servers.postgres.PostgreSQL`."""

    def __init__(self, owner: str, folder: Path, *, keep: bool) -> None:
        # From 18 on the image's data are a folder further down, and it refuses a volume there.
        is_older = int(image("postgres").partition(":")[2].partition(".")[0]) < 18
        path = f"/var/lib/postgresql{'/data' if is_older else ''}"
        super().__init__(owner, folder, "postgres", (5432,), path, keep=keep)
        self._container.with_command(f"postgres -c max_connections={MAX_CONNECTIONS}")
        self._container.with_env("POSTGRES_PASSWORD", "fellow")
        self._container.with_env("POSTGRES_DB", "order_fellow")

    def url(self, database: str = "order_fellow") -> str:
        """The SQLAlchemy address of a database."""
        return f"postgresql+psycopg2://postgres:fellow@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the superuser, outside a transaction."""
        execute(self.url(database), statement)

    def dump(self, database: str) -> None:
        """Back a database up, by pg_dump."""
        self._run("pg_dump", "-U", "postgres", "-Fc", f"-f/tmp/{database}.dump", database)

    def restore(self, database: str) -> None:
        """Put it back as it was then, whatever has become of it."""
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        self.execute(f"CREATE DATABASE {database}")
        self._run("pg_restore", "-U", "postgres", f"-d{database}", f"/tmp/{database}.dump")

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1", "order_fellow")
        except psycopg2.OperationalError:
            return False
        return True
