"""The processes of a running system: started, watched, restarted, stopped."""

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from stack import processes
from stack.folders import ROOT
from stack.processes import Process, stop
from stack.servers.listening import LISTEN_SECONDS, Start
from stack.servers.ports import Port

STOP_SECONDS = 10.0
FIRST_DELAY, LONGEST_DELAY = 0.5, 10.0  # before a restart

MODULES = {
    "ingress": "services.ingress",
    "orders": "services.orders",
    "kyc": "services.kyc",
    "secrets": "services.secrets",
    "notifier": "services.notifier",
    "audit": "services.audit",
    "relay": "services.relay",
    "ops": "services.ops.console",
    "portal": "services.portal",
}


@dataclass
class _Child:
    name: str
    command: list[object]
    environment: Mapping[str, object]
    process: Process | None = None
    delay: float = FIRST_DELAY
    due: float = 0.0
    started: float = field(default=0.0)


class Supervisor:
    """Runs every service.

    Args:
        environment: what they are configured by.
        logs: a folder; each process gets a file.
        console: where to say what happens.
        longest_delay: seconds that a process which dies again and again waits for its restart.
        spawn: starts a process, with the arguments of `stack.processes.spawn`.
    """

    def __init__(
        self,
        environment: dict[str, str],
        logs: Path,
        console: Console,
        longest_delay: float = LONGEST_DELAY,
        spawn: Callable[..., Process] = processes.spawn,
    ) -> None:
        self._spawn = spawn
        self._first_delay = min(FIRST_DELAY, longest_delay)
        self._longest_delay = longest_delay
        self._environment = os.environ | environment | {"PYTHONUNBUFFERED": "1"}
        self._logs = logs
        self._console = console
        self._children: list[_Child] = []
        self._starts: list[Start] = []

    def add(
        self,
        name: str,
        module: str,
        *arguments: object,
        environment: Mapping[str, object] | None = None,
        listens: Port | None = None,
    ) -> None:
        """Start `python -m module`, with `environment` beside what is everybody's.

        Args:
            name: of the child.
            module: what it runs.
            arguments: its arguments, as `str()` gives them at each start.
            environment: its own variables, likewise.
            listens: where it will listen; see `wait_until_listening`. What tells it so must stand
                among the arguments or in the environment as the port itself.
        """
        child = _Child(name, [sys.executable, "-m", module, *arguments], environment or {})
        child.delay = self._first_delay
        log = self._logs / f"{name}.log"
        log.unlink(missing_ok=True)
        self._children.append(child)
        if listens is None:
            self._start(child)
        else:
            start = partial(self._start, child)
            self._starts.append(Start(name, start, (listens,), log, LISTEN_SECONDS))

    def wait_until_listening(self) -> None:
        """Wait until those that listen do so, on other ports when somebody has taken theirs.

        Only then their addresses are certain.

        Raises:
            stack.servers.listening.DidNotStartError: one does not listen.
            stack.servers.ports.PortTakenError: a port that somebody has named is taken.
        """
        while self._starts:
            self._starts.pop(0).wait()

    def swap(self, name: str, module: str) -> None:
        """Run another module under a name, from its next start on."""
        for child in self._children:
            if child.name == name:
                child.command[-1] = module

    def watch(self, but: Collection[str] = ()) -> None:
        """Restart what has ended; called again and again.

        Args:
            but: names of those that are left down.
        """
        now = time.monotonic()
        for child in self._children:
            process = child.process
            if process is not None and process.poll() is not None:
                if now - child.started > 30:
                    child.delay = self._first_delay
                self._console.print(
                    f"[yellow]{child.name} ended with {process.returncode}; "
                    f"starting it again in {child.delay:g} s. Its log ends with:[/]\n"
                    f"{escape(self.tail(child.name))}",
                    highlight=False,
                )
                child.process, child.due = None, now + child.delay
                child.delay = min(child.delay * 2, self._longest_delay)
            if child.process is None and now >= child.due and child.name not in but:
                self._start(child)

    def pid(self, name: str) -> int | None:
        """The process id of a child; None while it is down."""
        for child in self._children:
            if child.name == name and child.process is not None and child.process.poll() is None:
                return child.process.pid
        return None

    def tail(self, name: str, lines: int = 5) -> str:
        """The end of a process's log."""
        log = self._logs / f"{name}.log"
        if not log.exists():
            return ""
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """Stop all of them, together, within `STOP_SECONDS`."""
        stopping = [
            threading.Thread(target=stop, args=(child.process, STOP_SECONDS))
            for child in self._children
            if child.process is not None
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()

    def _start(self, child: _Child) -> Process:
        child.started = time.monotonic()
        own = {name: str(value) for name, value in child.environment.items()}
        child.process = self._spawn(
            [str(part) for part in child.command],
            environment=self._environment | own,
            log=self._logs / f"{child.name}.log",
            directory=ROOT,
        )
        return child.process
