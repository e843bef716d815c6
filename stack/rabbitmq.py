"""A private RabbitMQ node of the machine's own package, on loopback."""

import hashlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amqp.exceptions import AMQPError
from kombu import Connection

from stack.credentials import admission
from stack.processes import free_port, kill_leftover, kill_session, spawn, stop, wait_until_taken

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
READY_SECONDS = 60.0


def is_installed() -> bool:
    """Whether this machine has RabbitMQ."""
    return (SCRIPTS / "rabbitmq-server").exists()


@dataclass(frozen=True)
class Cluster:
    """What the nodes of a cluster have in common.

    Args:
        folders: of its nodes, the first of which is started first.
    """

    folders: tuple[Path, ...]
    epmd_port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16))

    def configuration(self) -> str:
        """What each node's configuration says of the others."""
        lines = [
            f"cluster_formation.classic_config.nodes.{i} = {node_name(folder)}"
            for i, folder in enumerate(self.folders, 1)
        ]
        lines += [
            "cluster_formation.peer_discovery_backend = classic_config",
            "cluster_formation.randomized_startup_delay_range.min = 0",
            "cluster_formation.randomized_startup_delay_range.max = 1",
            "cluster_partition_handling = pause_minority",
        ]
        return "".join(f"{line}\n" for line in lines)


def node_name(data: Path) -> str:
    """Stable, since what a node keeps is kept under its name; unique on the machine."""
    return f"fellow-{hashlib.sha256(str(data).encode()).hexdigest()[:10]}@localhost"


class RabbitMQ:
    """One node, with its own home, cookie, ports and port mapper.

    Args:
        data: its folder; what is in it is kept.
        cluster: what it is a node of, if of any; its cookie and port mapper are the cluster's.
        management: whether it has the management API, at `management_url`. It takes memory.
    """

    def __init__(
        self, data: Path, cluster: Cluster | None = None, *, management: bool = False
    ) -> None:
        self._data = data
        self._cluster = cluster
        self._management_port = free_port() if management else None
        self._port, self._dist_port = free_port(), free_port()
        self._epmd_port = cluster.epmd_port if cluster else free_port()
        self.name = node_name(data)
        self._node: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._password = ""

    def url(self, vhost: str = "") -> str:
        """The address of a virtual host; of the default one when it is not named."""
        return f"amqp://fellow:{self._password}@127.0.0.1:{self._port}/{vhost}"

    @property
    def management_url(self) -> str:
        """The management API."""
        return f"http://127.0.0.1:{self._management_port}"

    def start(self) -> None:
        """Start the node, on the same ports as before, and wait until it answers.

        Raises:
            RuntimeError: it does not; with the end of its log.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the node without waiting for it."""
        self._data.mkdir(parents=True, exist_ok=True)
        self._heal()
        self._configure()
        environment = self._environment()
        log = self._data / "output.log"
        if self._epmd is None or self._epmd.poll() is not None:
            # In the foreground and ours: the one that a node starts by itself would outlive it.
            command = ("epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1")
            self._epmd = spawn(command, environment=environment, log=log)
            wait_until_taken(self._epmd_port, 5)
        self._node = spawn((str(SCRIPTS / "rabbitmq-server"),), environment=environment, log=log)

    def stop(self) -> None:
        """Stop the node cleanly."""
        if self._node is not None:
            stop(self._node, 20)
            self._node = None
        if self._epmd is not None:
            stop(self._epmd, 2)
            self._epmd = None

    def close(self) -> None:
        """Stop for good."""
        self.stop()

    def kill(self) -> None:
        """SIGKILL the node, as a power cut would."""
        if self._node is not None:
            self._node.send_signal(signal.SIGKILL)
            kill_session(self._node.pid)
            self._node.wait()
            self._node = None

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl against the node; returns what it printed.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        done = subprocess.run(
            (str(SCRIPTS / "rabbitmqctl"), "--quiet", *arguments),
            env=self._environment(),
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def admit(self, vhosts: Sequence[str] = ("/",), remove: Sequence[str] = ()) -> None:
        """Make the services' users, with their rights in virtual hosts, which are made as well.

        In one call whatever their number: starting rabbitmqctl costs a second each time.
        """
        self.control("eval", admission(self.url(), vhosts, remove))

    def _configure(self) -> None:
        shared = self._cluster.password if self._cluster else None
        password = self._data / "password"
        if not password.exists():
            password.touch(mode=0o600)
            password.write_text(shared or secrets.token_hex(16))
        self._password = password.read_text()
        cookie = self._data / ".erlang.cookie"
        if shared and not cookie.exists():
            cookie.write_text(shared)
            cookie.chmod(0o400)
        (self._data / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            "default_user = fellow\n"
            f"default_pass = {self._password}\n"
            # A developer's disk is often nearly full, and that must not stop publishing.
            "disk_free_limit.absolute = 50MB\n"
            + (self._cluster.configuration() if self._cluster else "")
            + (
                f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._management_port}\n"
                if self._management_port
                else ""
            )
        )
        (self._data / "rabbitmq.conf").chmod(0o600)
        (self._data / "enabled_plugins").write_text(
            "[rabbitmq_management].\n" if self._management_port else "[].\n"
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{SCRIPTS}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self._data),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._data / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._data / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._data / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(self._data / "node.pid"),
            # The distribution port listens where the host name points to, and no further.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Bound to cores, as is the default, its threads wait while another program has theirs.
            # On a machine that it shares an order costs it a fifth less so (docs/performance.md).
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _heal(self) -> None:
        kill_leftover(self._data / "node.pid", self.name)

    def wait(self) -> None:
        """Wait until the node answers.

        Raises:
            RuntimeError: it does not; with the end of its log.
        """
        log = self._data / "output.log"
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self._node is not None and self._node.poll() is not None:
                break
            try:
                with Connection(self.url(), connect_timeout=2) as connection:
                    connection.connect()
            except (OSError, AMQPError):
                time.sleep(0.2)
            else:
                return
        raise RuntimeError(f"RabbitMQ did not start; the end of {log}:\n{log.read_text()[-2000:]}")
