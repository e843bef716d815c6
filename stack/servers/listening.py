"""Servers that are started until they listen on their ports themselves, on other ports if need be.

Between the choosing of a port and its server's listening there somebody else may listen on it
(`ports.py`). That is seen by who the listener is, and by what the server says when it ends.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stack.processes import Process, stop
from stack.servers.ports import Port, listeners

ATTEMPTS = 10  # somebody who takes every port at once is not to be had by trying longer
LOOK_SECONDS = 0.1
LISTEN_SECONDS = 60.0  # until a program of ours listens, on a machine that has much to do
_IN_USE = re.compile(
    r"address (?:is )?already in use|eaddrinuse|already_in_use|port \d+ (?:is )?in use|"
    r"already running",  # epmd's words
    re.IGNORECASE,
)


class DidNotStartError(RuntimeError):
    """A server did not start; the message holds the end of its log."""


class Start:
    """A server's start, in two steps so that several can start at once.

    Args:
        name: what it is called in a message.
        start: starts its process, which leads a session, on what `ports` say at that moment.
        ports: it listens on all of them when it is ready.
        log: what it writes to.
        seconds: that a start may take.
        is_ready: what else must be so; asked again and again.
        movable: whether it may go to other ports; not once somebody knows them.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        ports: Sequence[Port],
        log: Path,
        seconds: float,
        is_ready: Callable[[], bool] = lambda: True,
        *,
        movable: bool = True,
    ) -> None:
        self._name, self._start, self._log = name, start, log
        self._ports, self._seconds = tuple(ports), seconds
        self._is_ready, self._movable = is_ready, movable
        self._launch()

    def wait(self) -> Process:
        """Wait until the server listens and is ready; returns its process.

        Raises:
            DidNotStartError: it did not, and not because others had its ports; or they had them
                again and again.
            stack.servers.ports.PortTakenError: a port that somebody has named is taken.
        """
        for _ in range(ATTEMPTS):
            outcome = self._watch()
            if outcome == "ready":
                return self.process
            stop(self.process, 5)
            if outcome == "failed" or not self._movable:
                break
            for port in self._ports:
                port.move()
            self._launch()
        else:
            stop(self.process, 5)
        raise DidNotStartError(
            f"{self._name} did not start; the end of {self._log}:\n{self._said()[-2000:]}"
        )

    def _launch(self) -> None:
        self._from = self._log.stat().st_size if self._log.exists() else 0
        self.process = self._start()

    def _watch(self) -> str:
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            # In this order: one who has ended cannot listen any more.
            ended = self.process.poll() is not None
            session = self.process.pid
            # Twice, since one of its own may end between the two looks of which each consists.
            if _strangers(self._ports, session) and _strangers(self._ports, session):
                return "taken"
            if ended:
                return "taken" if _IN_USE.search(self._said()) else "failed"
            heard = {one.port for one in listeners()}
            if heard.issuperset(port.number for port in self._ports) and self._is_ready():
                return "ready"
            time.sleep(LOOK_SECONDS)
        return "failed"

    def _said(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")


def _strangers(ports: Sequence[Port], session: int) -> bool:
    """Whether somebody listens on one of the ports who is not of a session."""
    numbers = {port.number for port in ports}
    found = {one.inode: one.user for one in listeners() if one.port in numbers}
    if not found:
        return False
    ours, hidden = _sockets(session)
    return any(inode not in ours and user not in hidden for inode, user in found.items())


def _sockets(session: int) -> tuple[set[int], set[int]]:
    """The sockets that processes of a session have open.

    Returns:
        Their inodes, and the users of processes that may not be looked into: as root in a container
        one lacks CAP_SYS_PTRACE, and PostgreSQL runs as another user (proc(5), /proc/pid/fd).
    """
    found: set[int] = set()
    hidden: set[int] = set()
    for process in _members(session):
        try:
            found |= _sockets_of(process)
        except PermissionError:
            with contextlib.suppress(OSError):  # it has ended
                hidden.add(Path(f"/proc/{process}").stat().st_uid)
    return found, hidden


def _sockets_of(process: int) -> set[int]:
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for entry in os.scandir(f"/proc/{process}/fd"):
            with contextlib.suppress(FileNotFoundError):  # it has closed this one
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def _members(session: int) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(ValueError, OSError):
            if os.getsid(int(entry.name)) == session:
                found.append(int(entry.name))
    return found
