"""postfix's smtp-sink: a mail server that takes everything, keeps nothing, and counts."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.processes import Process, spawn, stop
from stack.servers.listening import Start
from stack.servers.ports import Port

PROGRAM = "/usr/sbin/smtp-sink"  # where Debian has it, and where only root's path leads
NEEDS = (PROGRAM, "postfix")


@dataclass(frozen=True)
class SmtpSink:
    """A running one.

    Attributes:
        port: on loopback.
        log: what it prints.
    """

    port: int
    log: Path

    def taken(self) -> int:
        """How many emails it has accepted."""
        counts = re.findall(r"mesg=(\d+)", self.log.read_text())
        return int(counts[-1]) if counts else 0


@contextmanager
def smtp_sink(folder: Path) -> Iterator[SmtpSink]:
    """One for as long as the context lasts.

    Args:
        folder: for its log.
    """
    port = Port()
    log = folder / f"smtp-sink-{port}.log"
    # It refuses to run as root.
    user = ("-u", "nobody") if os.geteuid() == 0 else ()

    def start() -> Process:
        command = (PROGRAM, "-c", *user, f"127.0.0.1:{port}", "128")
        return spawn(command, environment=os.environ, log=log)

    process = Start("smtp-sink", start, (port,), log, 10).wait()
    try:
        yield SmtpSink(port.number, log)
    finally:
        stop(process, 5)
