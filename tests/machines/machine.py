"""A machine: a container that stays while commands run in it, one after the other or at once."""

import io
import shlex
import tarfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import docker

from stack.servers.containers import FOLDER, OWNER
from tests.machines import images

# What a process needs that Debian's first one, systemd, would do: adopt orphans and bury them.
FIRST_PROCESS = ("bash", "-c", "sleep infinity & wait")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Ran:
    """What became of a command.

    Attributes:
        code: its exit code; none when it did not end in time.
        seconds: how long it took.
        log: what it printed.
    """

    code: int | None
    seconds: float
    log: Path

    def output(self) -> str:
        """What it printed, as text."""
        return self.log.read_text(errors="replace")


class Machine:
    """A running machine, for as long as the context lasts.

    Args:
        client: the engine.
        suite: what it is an image of; see `tests.machines.images.SUITES`.
        owner: the checkout, for finding what a killed run has left.
        folder: of this run, held by a lease.
        options: what else its container gets, as Docker's SDK calls it.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        suite: str,
        owner: str,
        folder: Path,
        options: Mapping[str, Any],
    ) -> None:
        volumes = images.reach() | options.get("volumes", {})
        self._container = client.containers.create(
            images.base(suite),
            list(FIRST_PROCESS),
            labels={OWNER: owner, FOLDER: str(folder)},
            **(dict(options) | {"volumes": volumes}),
        )

    def __enter__(self) -> "Machine":
        self._container.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._container.remove(force=True, v=True)

    def kill(self) -> None:
        """SIGKILL everything on it, and with that end whatever runs."""
        self._container.kill()

    def put(self, content: bytes, folder: str, name: str) -> None:
        """Put a file, which everybody may read, into a folder that is there."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
        self._container.put_archive(folder, packed.getvalue())

    def run(
        self, script: str, log: Path, *, seconds: float, user: str = "root", folder: str = "/"
    ) -> Ran:
        """Run a shell script with `PATH` and `HOME` alone in its environment.

        A machine on which one did not end in time is stopped.

        Args:
            script: for bash.
            log: takes what it prints.
            seconds: after which it is over.
            user: whose process it is.
            folder: where it runs.
        """
        home = "/root" if user == "root" else f"/home/{user}"
        clean = f"env -i PATH={PATH} HOME={home} bash -c {shlex.quote(script)}"
        command = self._container.client.api.exec_create(
            self._container.id, ["bash", "-c", clean], user=user, workdir=folder
        )["Id"]
        late = threading.Event()

        def end() -> None:
            late.set()
            self.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        started = time.monotonic()
        with log.open("wb") as output:
            for piece in self._container.client.api.exec_start(command, stream=True):
                output.write(piece)
                output.flush()
        timer.cancel()
        code = (
            None if late.is_set() else self._container.client.api.exec_inspect(command)["ExitCode"]
        )
        return Ran(code, time.monotonic() - started, log)
