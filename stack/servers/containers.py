"""The servers in containers, by testcontainers, with the images of docker-compose.yml."""

import contextlib
import os
import re
import socket
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
from requests import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from shared import lease
from stack.servers import data
from stack.servers.credentials import admission
from stack.servers.listening import DidNotStartError
from stack.servers.ports import Port
from stack.servers.postgres import MAX_CONNECTIONS, SIZES, execute
from stack.servers.rabbitmq import CONSUMER_TIMEOUT

READY_SECONDS = 90.0
MANAGEMENT = 15672
_PORT_TAKEN = re.compile("already allocated|already in use")
OWNER, FOLDER = "order-fellow.checkout", "order-fellow.folder"  # labels
# Of Docker's SDK, and of what it is made with: that an engine is away, or slow, it wraps at its
# first look alone.
ENGINE_ERRORS = (DockerException, RequestException)
INSIDE = Path("/.dockerenv")  # is in each container of Docker
COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"

# testcontainers' own helper container would be one more image to pull; everything is stopped here.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
# Else Docker's SDK, which looks and removes, and testcontainers, which starts, each find an engine
# in a way of its own, and that may be two.
os.environ["DOCKER_HOST"] = data.docker_host()
testcontainers_config.tc_properties.pop("tc.host", None)


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
        if not _publishes_here(client):
            return False
    except ENGINE_ERRORS:
        return False
    for name in (image("rabbitmq"), image("postgres")):
        try:
            client.images.get(name)
        except ImageNotFound:
            print(f"Pulling {name}", flush=True)
            try:
                client.images.pull(name)
            except ENGINE_ERRORS as error:
                print(f"Docker cannot pull {name}: {error}", flush=True)
                return False
        except ENGINE_ERRORS:
            return False
    return True


def _publishes_here(client: docker.DockerClient) -> bool:
    """Whether its containers' ports are on our loopback.

    In a container that was given the socket of its own engine they are on that of the machine.
    """
    if not INSIDE.exists():
        return True
    try:
        ours = client.containers.get(socket.gethostname())
    except NotFound:  # of another engine
        return True
    return bool(ours.attrs["HostConfig"]["NetworkMode"] == "host")


def remove_abandoned(owner: str, ours: Path | None = None) -> None:
    """Remove the containers of runs that were killed: a container does not end with its maker.

    Nothing where there is no Docker. Several may do it at once.

    Args:
        owner: the checkout that they were made by.
        ours: a folder that the caller holds, and has started nothing on: whatever is there is of
            one that held it before.
    """
    mine = {"label": f"{OWNER}={owner}"}
    try:
        with contextlib.closing(docker.from_env(timeout=30)) as client:
            for found in client.containers.list(all=True, filters=mine, ignore_removed=True):
                folder = Path(found.labels.get(FOLDER, "/nowhere"))
                if folder == ours or not lease.is_held(folder):
                    _remove(found)
    except ENGINE_ERRORS as error:
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
    except ENGINE_ERRORS as error:
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
        self._volume = f"{owner}-{name}" if keep else None
        if self._volume:
            self._container.with_volume_mapping(self._volume, path, "rw")

    @property
    def port(self) -> int:
        """Where it listens on loopback; certain once it has been started."""
        return self.ports[0].number

    @property
    def ports(self) -> Sequence[Port]:
        """All that it needs."""
        return list(self._ports.values())

    @property
    def is_running(self) -> bool:
        """Whether the container runs, as far as its engine says."""
        try:
            container = self._container.get_wrapped_container()
            container.reload()
        except NotFound:
            return False
        except ENGINE_ERRORS:
            return True
        return bool(container.status in ("running", "paused"))

    def start(self) -> None:
        """Start the container, or start it again on the same port, and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the container without waiting for what is in it.

        Raises:
            DidNotStartError: the engine refuses, or another container has its volume: neither
                server notices, and they destroy what is in it.
        """
        try:
            if self._volume and not self._is_known:
                self._refuse_shared(self._volume)
            self._launch()
        except ENGINE_ERRORS as error:
            raise DidNotStartError(f"Docker cannot start {type(self).__name__}: {error}") from None

    def _refuse_shared(self, volume: str) -> None:
        engine = self._container.get_docker_client().client
        for other in engine.containers.list(filters={"volume": volume}, ignore_removed=True):
            raise DidNotStartError(
                f"the container {other.name} runs on the volume {volume}: docker rm -f {other.name}"
            )

    def _launch(self) -> None:
        if self._is_known:
            try:
                self._container.get_wrapped_container().start()
            except NotFound:  # somebody has removed it, and its volume has what it kept
                if self._volume:
                    self._refuse_shared(self._volume)
                self._container._container = None
            else:
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
                if self._is_known or not _PORT_TAKEN.search(str(error)):
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
        except ENGINE_ERRORS as error:
            return str(error)
        return bytes(log).decode(errors="replace")[-2000:]

    def stop(self) -> None:
        """Stop the container; it can be started again."""
        if self._container._container is not None:
            self._container.get_wrapped_container().stop(timeout=8)

    def close(self) -> None:
        """Stop and remove the container, where its engine answers; a named volume stays."""
        try:
            self.stop()
            self._container.stop()
        except NotFound:  # somebody has removed it
            pass
        except ENGINE_ERRORS as error:
            print(f"Docker keeps the container of {type(self).__name__}: {error}", flush=True)
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
        # An Erlang argument, since an engine elsewhere cannot mount a file of ours.
        limits = f"-rabbit consumer_timeout {CONSUMER_TIMEOUT}"
        self._container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", limits)

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

    def admit(self, vhosts: Sequence[str] = ("/",)) -> None:
        """Make the services' users, with their rights in virtual hosts, which are made as well."""
        self.evaluate(admission(self.url(), vhosts))

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
        tag = re.match(r"[^@]*:(\d+)", image("postgres"))
        is_older = tag is not None and int(tag[1]) < 18
        path = f"/var/lib/postgresql{'/data' if is_older else ''}"
        super().__init__(owner, folder, "postgres", (5432,), path, keep=keep)
        options = {"max_connections": str(MAX_CONNECTIONS)} | (SIZES if keep else {})
        words = ["postgres", *(f"-c{name}={value}" for name, value in options.items())]
        self._container.with_command(" ".join(words))
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
