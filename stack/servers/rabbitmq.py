"""A private RabbitMQ node of the machine's own package, on loopback."""

import hashlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amqp.exceptions import AMQPError
from kombu import Connection

from stack.processes import Process, kill_leftover, kill_session, spawn, stop
from stack.servers import data
from stack.servers.credentials import admission
from stack.servers.listening import Start
from stack.servers.ports import Port

SCRIPTS = Path("/usr/lib/rabbitmq/bin")
READY_SECONDS = 180.0  # eight nodes at once on two cores take over a minute
EPMD_SECONDS = 30.0
TOOL_SECONDS = 180  # rabbitmqctl's virtual machine starts in three where nothing else is done
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONSUMER_TIMEOUT = 30 * 24 * 3_600_000  # ms; the reason stands in deploy/rabbitmq.conf
# A developer's disk is often nearly full, and that must not stop publishing.
DISK_FREE_LIMIT = "disk_free_limit.absolute = 50MB\n"


def is_installed() -> bool:
    """Whether this machine has RabbitMQ."""
    return (SCRIPTS / "rabbitmq-server").exists()


class PortMapper:
    """epmd, in the foreground and ours: the one that a node starts by itself would outlive it."""

    def __init__(self) -> None:
        self.port = Port()
        self._process: Process | None = None
        self._is_known = False

    def start(self, environment: Mapping[str, str], log: Path) -> None:
        """Start it, if it does not run."""
        if self._process is not None and self._process.poll() is None:
            return

        def start() -> Process:
            command = ("epmd", "-port", str(self.port), "-address", "127.0.0.1")
            return spawn(command, environment=environment, log=log)

        starting = Start("epmd", start, (self.port,), log, EPMD_SECONDS, movable=not self._is_known)
        self._process, self._is_known = starting.wait(), True

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            stop(self._process, 2)
            self._process = None


@dataclass(frozen=True)
class Cluster:
    """What the nodes of a cluster have in common.

    Args:
        folders: of its nodes, the first of which is started first.
    """

    folders: tuple[Path, ...]
    mapper: PortMapper = field(default_factory=PortMapper)
    password: str = field(default_factory=lambda: secrets.token_hex(16))

    def configuration(self) -> dict[str, str]:
        """The files that each node reads after its own: those of docker-compose.cluster.yml."""
        joined = re.sub(
            r"rabbit@rabbitmq(\d?)$",
            lambda found: node_name(self.folders[int(found[1] or 1) - 1]),
            (DEPLOY / "cluster" / "rabbitmq.conf").read_text(),
            flags=re.MULTILINE,
        )
        return {
            "30-limits.conf": (DEPLOY / "rabbitmq.conf").read_text(),
            "40-cluster.conf": joined,
            # 3.10 waits up to a minute before it looks for others, 4 not at all.
            "90-here.conf": "cluster_formation.randomized_startup_delay_range.min = 0\n"
            "cluster_formation.randomized_startup_delay_range.max = 1\n" + DISK_FREE_LIMIT,
        }


def node_name(data: Path) -> str:
    """Stable, since what a node keeps is kept under its name; unique on the machine."""
    return f"fellow-{hashlib.sha256(str(data).encode()).hexdigest()[:10]}@localhost"


class RabbitMQ:
    """One node, with its own home, cookie, ports and port mapper.

    Args:
        folder: its data; what is in it is kept.
        cluster: what it is a node of, if of any; its cookie and port mapper are the cluster's.
        management: whether it has the management API, at `management_url`. It takes memory.
        environment: further variables to start it with.
    """

    def __init__(
        self,
        folder: Path,
        cluster: Cluster | None = None,
        *,
        management: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._data = folder
        self._more = environment or {}
        self._cluster = cluster
        self._port, self._dist_port = Port(), Port()
        self._management_port = Port() if management else None
        self._mapper = cluster.mapper if cluster else PortMapper()
        self.name = node_name(folder)
        self._start: Start | None = None
        self._node: Process | None = None
        self._is_known = False
        self._password = ""

    def url(self, vhost: str = "") -> str:
        """The address of a virtual host; of the default one when it is not named."""
        return f"amqp://fellow:{self._password}@127.0.0.1:{self._port}/{vhost}"

    @property
    def ports(self) -> tuple[Port, ...]:
        """All that it needs; others than before when somebody took one before its first start."""
        own = (self._port, self._dist_port, self._mapper.port)
        return (*own, self._management_port) if self._management_port else own

    @property
    def management_url(self) -> str:
        """The management API."""
        return f"http://127.0.0.1:{self._management_port}"

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._node is not None and self._node.poll() is None

    def start(self) -> None:
        """Start the node, on the same ports as before, and wait until it answers.

        Raises:
            stack.servers.listening.DidNotStartError: it does not; with the end of its log.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the node without waiting for it."""
        self._data.mkdir(parents=True, exist_ok=True)
        self._heal()
        log = self._data / "output.log"
        self._mapper.start(self._environment(), log)

        def start() -> Process:
            self._configure()
            command = (str(SCRIPTS / "rabbitmq-server"),)
            environment = {**self._environment(), **self._more}
            self._node = spawn(command, environment=environment, log=log)
            return self._node

        ports = [port for port in self.ports if port is not self._mapper.port]
        self._start = Start(
            "RabbitMQ", start, ports, log, READY_SECONDS, self._answers, movable=not self._is_known
        )

    def stop(self) -> None:
        """Stop the node cleanly."""
        if self._node is not None:
            stop(self._node, 20)
            self._node = None
        if self._cluster is None or self._data == self._cluster.folders[0]:
            self._mapper.stop()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._port.release()
        self._dist_port.release()
        if self._management_port is not None:
            self._management_port.release()

    def kill(self) -> None:
        """SIGKILL the node, as a power cut would."""
        if self._node is not None:
            self._node.send_signal(signal.SIGKILL)
            kill_session(self._node.pid)
            self._node.wait()
            self._node = None

    def control(self, *arguments: str, program: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl, or another of its programs, against the node; returns what it printed.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        done = subprocess.run(
            (str(SCRIPTS / program), "--quiet", *arguments),
            env=self._environment(),
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
            timeout=TOOL_SECONDS,
        )
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """Evaluate Erlang in the node, as `rabbitmqctl eval` does; returns the value, printed.

        By erl_call(1), which is there a hundred times as soon as rabbitmqctl: that starts a virtual
        machine of its own.

        Args:
            expression: without the dot at its end.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            ("erl_call", "-sname", self.name, "-timeout", f"{TOOL_SECONDS}", "-e"),
            input=f"{expression}.\n",
            env=self._environment(),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        value = re.fullmatch(r"\{ok, (.*)\}", done.stdout.strip(), re.DOTALL)
        if value is None:
            raise RuntimeError(f"{expression}: {done.stdout or done.stderr}")
        return value[1]

    def admit(self, vhosts: Sequence[str] = ("/",)) -> None:
        """Make the services' users, with their rights in virtual hosts, which are made as well."""
        self.evaluate(admission(self.url(), vhosts))

    def _configure(self) -> None:
        shared = self._cluster.password if self._cluster else None
        self._password = data.password(self._data / "password", self._data / "mnesia", shared or "")
        cookie = self._data / ".erlang.cookie"
        if shared and not cookie.exists():
            cookie.write_text(shared)
            cookie.chmod(0o400)
        (self._data / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self._port}\n"
            "default_user = fellow\n"
            f"default_pass = {self._password}\n"
            + DISK_FREE_LIMIT
            + f"consumer_timeout = {CONSUMER_TIMEOUT}\n"
            + (
                f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self._management_port}\n"
                if self._management_port
                else ""
            )
        )
        (self._data / "rabbitmq.conf").chmod(0o600)
        (self._data / "conf.d").mkdir(exist_ok=True)
        for name, text in (self._cluster.configuration() if self._cluster else {}).items():
            (self._data / "conf.d" / name).write_text(text)
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
            "RABBITMQ_CONFIG_FILES": str(self._data / "conf.d" / "*.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._data / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(self._data / "node.pid"),
            # The distribution port listens where the host name points to, and no further.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Bound to cores, as is the default, its threads wait while another program has theirs.
            # On a machine that it shares an order costs it a fifth less so (docs/performance.md).
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",
            "ERL_EPMD_PORT": str(self._mapper.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def _heal(self) -> None:
        kill_leftover(self._data / "node.pid", self.name)

    def wait(self) -> None:
        """Wait until the node answers.

        Raises:
            stack.servers.listening.DidNotStartError: it does not; with the end of its log.
        """
        if self._start is None:
            raise RuntimeError("wait() is for a node that was launched")
        self._start.wait()
        self._is_known = True

    def _answers(self) -> bool:
        try:
            with Connection(self.url(), connect_timeout=2) as connection:
                connection.connect()
        except (OSError, AMQPError):
            return False
        return True
