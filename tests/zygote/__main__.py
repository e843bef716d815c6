"""`python -m tests.zygote SOCKET MODULE ...`: import the modules, then fork whenever asked.

It ends when whoever holds the other end of the socket does, and takes along what it has forked.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from stack.processes import MAX_FILES, preparation
from tests import cheap_hashes

LARGEST_REQUEST = 1 << 20
STREAMS = 3  # standard input, output and errors; behind them comes what the end is reported to


@dataclass(frozen=True)
class Request:
    """What a fork is to run: `python -m module arguments`.

    Attributes:
        streams: file descriptors of its standard input, output and errors.
        parent: the process that it was forked from.
    """

    module: str
    arguments: list[str]
    environment: dict[str, str]
    directory: str
    streams: list[int]
    parent: int


def serve(control: socket.socket) -> Request | None:
    """Fork whenever asked, and report each fork's id and, at its end, its exit code.

    Returns:
        In a fork, what it is to run; at the end, in the process itself, nothing.
    """
    running: dict[int, tuple[int, Connection]] = {}
    events = select.poll()
    events.register(control, select.POLLIN)
    while True:
        for number, _ in events.poll():
            if number != control.fileno():
                events.unregister(number)
                os.close(number)
                _report_end(*running.pop(number))
                continue
            message, descriptors, *_ = socket.recv_fds(control, LARGEST_REQUEST, STREAMS + 1)
            if not message:
                return None
            streams, report = descriptors[:STREAMS], Connection(descriptors[STREAMS])
            parent = os.getpid()
            process = os.fork()
            if not process:
                # What is closed here does not close a file of the same number later.
                for held in (control, report, *(other for _, other in running.values())):
                    held.close()
                return Request(**json.loads(message), streams=streams, parent=parent)
            for descriptor in streams:
                os.close(descriptor)
            ending = os.pidfd_open(process)
            events.register(ending, select.POLLIN)
            running[ending] = process, report
            _tell(report, process)


def _report_end(process: int, report: Connection) -> None:
    _, status = os.waitpid(process, 0)
    _tell(report, os.waitstatus_to_exitcode(status))
    report.close()


def _tell(report: Connection, what: int) -> None:
    with contextlib.suppress(OSError):  # nobody wants to know any more
        report.send(what)


def become(request: Request) -> None:
    """Make this fork what a process of its own would be before its first import."""
    for number, descriptor in enumerate(request.streams):
        os.dup2(descriptor, number)
    os.closerange(STREAMS, MAX_FILES)
    os.setsid()
    preparation()()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.getppid() != request.parent:  # it has ended, too early for us to be told by a signal
        os._exit(1)
    os.chdir(request.directory)
    sys.path[0] = request.directory
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    cheap_hashes.install(request.environment)
    sys.argv[1:] = request.arguments
    _open_streams(unbuffered=bool(request.environment.get("PYTHONUNBUFFERED")))


def _open_streams(*, unbuffered: bool) -> None:
    # The zygote's own know of its files, not of these, whether one can seek in them.
    # What they are like is as CPython's `create_stdio` has it.
    for number, (name, mode) in enumerate((("stdin", "rb"), ("stdout", "wb"), ("stderr", "wb"))):
        before = getattr(sys, name)
        stream = io.TextIOWrapper(
            open(number, mode, 0 if unbuffered and number else -1, closefd=False),  # noqa: SIM115
            encoding=before.encoding,
            errors=before.errors,
            line_buffering=not unbuffered and (number == 2 or os.isatty(number)),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def main() -> None:
    """Serve; in a fork, run what was asked for, and end as that does."""
    descriptor, *modules = sys.argv[1:]
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or a fork's first collection would copy it all
    request = serve(socket.socket(fileno=int(descriptor)))
    if request is not None:
        become(request)
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
