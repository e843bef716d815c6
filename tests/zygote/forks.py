"""Start a process of ours as a fork; what is about the start itself starts a fresh one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from stack import processes
from stack.folders import ROOT

LIBRARIES = (
    "alembic.command",
    "amqp",
    "argon2",
    "babel.dates",  # of TZ it keeps a default for times, of which ours prints none
    "cryptography.fernet",
    "cryptography.hazmat.primitives.ciphers.aead",
    "email.policy",
    "falcon.asgi",
    "http.server",
    "httpx",
    "jinja2",
    "jwt",
    "kombu.connection",
    "kombu.transport.pyamqp",
    "markdown_it",
    "msgspec",
    "pika",
    "psycopg2.extras",
    "pyotp",
    "regex",
    "segno",
    "smtplib",
    "sqlalchemy.dialects.postgresql.psycopg2",
    "sqlalchemy.ext.hybrid",
    "sqlalchemy.orm",
    "structlog",
    "uuid_utils.compat",
    "uvicorn_worker",
    "uvloop",
    "wsgiref.simple_server",
    "zxcvbn",
)
"""What our processes import from others, but for what looks at the environment when it is imported:
`gunicorn.config` takes its defaults from there, and `prometheus_client` where it writes."""

OURS = (
    "services.audit.handlers",
    "services.ingress.diagnosis.api",
    "services.kyc.handlers",
    "services.ops.commands.giving",
    "services.ops.dead_letters.search",
    "services.ops.timelines.unrecorded",
    "services.orders.api",
    "services.portal.web.sessions",
    "services.relay.vetting",
)
"""Of ours, those that bring along most of the others and depend on nothing of a process: no
settings, no counters of prometheus_client, no `argon2.PasswordHasher`, nothing drawn."""

# What an interpreter, or the C library below it, reads once when it starts.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "GLIBC_", "MALLOC_", "OPENSSL_")


class Fork:
    """A process that a zygote has forked, with what `subprocess.Popen` has for a child."""

    def __init__(self, command: Sequence[str], report: Connection) -> None:
        self.args = command
        self.returncode: int | None = None
        self._report = report
        self._reading = threading.Lock()
        self.pid: int = report.recv()

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for at most `timeout` seconds; returns its exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then.
        """
        code = self._code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, signal_: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and that is not reported yet
                os.kill(self.pid, signal_)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _code(self, seconds: float | None) -> int | None:
        # At the zygote's own end, which ends this one too, `recv` raises EOFError.
        if self.returncode is None and self._report.poll(seconds):
            with self._reading:
                if self.returncode is None:
                    self.returncode = self._report.recv()
                    self._report.close()
        return self.returncode


class Zygote:
    """A process that forks others, started when the first of them is asked for.

    Args:
        modules: what it imports beforehand.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._starting = threading.Lock()
        self._control: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        streams: Sequence[int],
        directory: Path = ROOT,
    ) -> Fork:
        """Run `python -m module arguments` in a session of its own.

        Args:
            module: what runs.
            arguments: its arguments.
            environment: the whole environment.
            streams: the file descriptors of its standard input, output and errors.
            directory: where it runs.
        """
        asked = {
            "module": module,
            "arguments": arguments,
            "environment": dict(environment),
            "directory": str(directory),
        }
        reader, writer = Pipe(duplex=False)
        with writer:
            message = json.dumps(asked).encode()
            socket.send_fds(self._connected(), [message], [*streams, writer.fileno()])
        return Fork((sys.executable, "-m", module, *arguments), reader)

    def close(self) -> None:
        """End it, and whatever of its forks runs."""
        if self._control is not None and self.process is not None:
            self._control.close()
            self.process.wait()
            self._control = self.process = None

    def _connected(self) -> socket.socket:
        with self._starting:
            if self._control is None:
                # Each message is one request, and whole.
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self.process = subprocess.Popen(
                        (sys.executable, "-m", __package__, str(theirs.fileno()), *self._modules),
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,
                    )
                self._control = ours
            return self._control


_services = Zygote((*LIBRARIES, *OURS))


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    directory: Path | None = None,
) -> processes.Process:
    """`stack.processes.spawn` for `python -m` something of ours: forked, where that is the same.

    It is not where the interpreter itself would start otherwise than this one did.
    """
    interpreter, option, module, *arguments = command
    if (interpreter, option) != (sys.executable, "-m") or _start(environment) != _start(os.environ):
        return processes.spawn(command, environment=environment, log=log, directory=directory)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "rb") as nothing, log.open("ab") as output:
        return _services.start(
            module,
            *arguments,
            environment=environment,
            streams=(nothing.fileno(), output.fileno(), output.fileno()),
            directory=directory or Path("/"),
        )


def _start(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_AT_START) and name != "PYTHONUNBUFFERED"
    }
