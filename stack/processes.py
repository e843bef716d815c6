"""Child processes that do not outlive us, and the leftovers of a run that was killed."""

import contextlib
import ctypes
import errno
import io
import os
import pwd
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TextIO

MAX_FILES = 65_536
PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


class Process(Protocol):
    """What is asked of a child; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, or less a signal's number; None until `poll` or `wait` has found it."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for at most `timeout` seconds; returns its exit code."""

    def send_signal(self, sig: int, /) -> None:
        """Send it a signal, unless it has ended."""


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    user: str | None = None,
    directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own (so that Ctrl-C is ours to hand on).

    Call it from the main thread: the child is told to end when the thread that made it ends, which
    is how it does not outlive us (prctl(2), PR_SET_PDEATHSIG).

    Args:
        command: the program and its arguments.
        environment: the whole environment.
        log: takes what it prints.
        user: whose process it becomes; root only.
        directory: where it runs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory or "/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=preparation(user),
        )


def end_with_make() -> None:
    """Be told to end when the `make` that started us ends: a killed one cannot hand it on."""
    if "MAKELEVEL" in os.environ:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def stop_on_signals() -> None:
    """Let SIGTERM, and a terminal that is closed, end the program like Ctrl-C.

    So that everything is stopped on the way out. A program that was told to outlive its terminal
    (nohup(1)) does. One whose output nobody reads any more ends too, also where nobody told it:
    a terminal signals its session's leader alone, and a pipe nobody.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def interrupt(which: int, _: FrameType | None) -> None:
        # A second one must not interrupt the stopping.
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        if which == signal.SIGHUP:
            _leave_terminal()
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    end_with_make()
    sys.stdout, sys.stderr = map(_watched, (sys.stdout, sys.stderr))


class _Output(io.FileIO):
    """What is written to; once nobody reads it, that is no fault of whoever writes, but an end."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
        _lead_nowhere(self.fileno())
        signal.raise_signal(signal.SIGHUP)
        return memoryview(data).nbytes


def _watched(output: TextIO | None) -> TextIO | None:
    ours = (sys.__stdout__, sys.__stderr__)
    if output is None or all(output is not one for one in ours):
        return output  # it was closed before we began, or is somebody's who collects it
    output.flush()
    raw = io.BufferedWriter(_Output(output.fileno(), "w", closefd=False))
    # A terminal that is not of UTF-8 lacks some letters of people's names.
    return io.TextIOWrapper(raw, output.encoding, "backslashreplace", line_buffering=True)


def _leave_terminal() -> None:
    """Write into nothing where a terminal was: what is said to one that is gone is an OSError."""
    for output in (1, 2):
        with contextlib.suppress(OSError):  # one that was closed
            if stat.S_ISCHR(os.fstat(output).st_mode):
                _lead_nowhere(output)


def _lead_nowhere(output: int) -> None:
    with open(os.devnull, "ab") as nothing:
        os.dup2(nothing.fileno(), output)


def stop(process: Process, seconds: float, how: int = signal.SIGTERM) -> None:
    """End a child: ask, wait, and then make sure that its whole session is gone."""
    if process.poll() is None:
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    kill_session(process.pid)
    process.wait()


def kill_session(leader: int) -> None:
    """SIGKILL everything in a session that a child of ours leads."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def kill_leftover(pid_file: Path, marker: str) -> None:
    """End what an earlier run left behind.

    Args:
        pid_file: holds its process id.
        marker: must occur in its command line: the number may be somebody else's by now.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, ValueError, IndexError):
        return
    if marker not in command:
        return
    for how, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not Path(f"/proc/{pid}").exists():
                return
            time.sleep(0.1)


def preparation(user: str | None = None) -> Callable[[], None]:
    """What a child does before it becomes its program.

    Args:
        user: whose process it becomes; root only.
    """
    account = pwd.getpwnam(user) if user else None

    def prepare() -> None:
        # A shell that started us in the background, or nohup, may have had us ignore them, and a
        # program that nobody can ask to end is killed in the middle of what it does.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Every quorum queue keeps files open, and 1024 of them, as many a system allows at first,
        # are soon used up.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_FILES), most))
        if account is not None:
            os.initgroups(account.pw_name, account.pw_gid)
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        # After the change of user, which clears it.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare
