"""Child processes that do not outlive us, and the leftovers of a run that was killed."""

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MAX_FILES = 65_536
PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_until_taken(port: int, seconds: float) -> None:
    """Wait until somebody listens on a port of loopback, or the time is over."""
    deadline = time.monotonic() + seconds
    while is_free(port) and time.monotonic() < deadline:
        time.sleep(0.02)


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
            preexec_fn=_prepare(user),
        )


def stop(process: subprocess.Popen[bytes], seconds: float, how: int = signal.SIGTERM) -> None:
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


def _prepare(user: str | None) -> Callable[[], None]:
    account = pwd.getpwnam(user) if user else None

    def prepare() -> None:
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
