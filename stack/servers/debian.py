"""Installing Debian's packages, without letting them start services of their own."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stack.processes import stop_on_signals

LOCK = Path("/run/order-fellow-apt.lock")
DPKG_LOCK = Path("/var/lib/dpkg/lock-frontend")
POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTER_CONF = Path("/etc/postgresql-common/createcluster.conf")
PATIENCE = 300.0  # seconds
MARK = "# Order Fellow, while it installs packages\n"


def can_install() -> bool:
    """Whether packages can be installed: as root, with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


class InstallError(RuntimeError):
    """Packages could not be installed; the message has the end of what apt said."""


def install(*packages: str) -> None:
    """Install packages, but for those that this distribution does not have.

    Several that want to at once wait for each other, and for a stranger's apt. An installation that
    was broken off is brought to its end first. Ctrl-C, a SIGTERM and a terminal that is closed wait
    for this one: after it services may start again.

    Raises:
        InstallError: apt could not, or does not know a package and could not fetch its lists.
    """
    stop_on_signals()
    print(f"Installing {', '.join(packages)} from the distribution's packages", flush=True)
    with _alone(), _no_services():
        updated = _apt("update", "-q")
        known = _known(packages)
        done = _apt("install", "-qy", "--no-install-recommends", *known)
    # Lists that it cannot fetch are warnings to apt, and no fault.
    faults = [line for line in updated.stdout.splitlines() if line.startswith(("E:", "W:"))]
    if done.returncode != 0 or (faults and len(known) < len(packages)):
        said = "\n".join((*faults, done.stdout.strip()))
        raise InstallError(f"apt-get could not install {' and '.join(packages)}:\n{said[-2000:]}")


def remove_leftovers() -> None:
    """Remove what a killed installation has left: with it no package would start its service.

    What one that goes on has made is left, and so is what apt still needs after its end.
    """
    left = [path for path in (POLICY, CLUSTER_CONF) if _is_ours(path)]
    if not left or not can_install():
        return
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if not _apt_is_running():
            for path in left:
                path.unlink(missing_ok=True)


def _apt_is_running() -> bool:
    try:
        with DPKG_LOCK.open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has never run
        return False
    return False


def _is_ours(path: Path) -> bool:
    try:
        return MARK in path.read_text(errors="replace")
    except OSError:
        return False


def _known(packages: Sequence[str]) -> tuple[str, ...]:
    """Those that this distribution has: one that it lacks would keep all others out."""
    return tuple(name for name in packages if has_candidate(name))


def has_candidate(package: str) -> bool:
    """Whether this distribution has a package, as far as its lists are here."""
    said = subprocess.run(
        ("apt-cache", "policy", package),
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return "Candidate:" in said and "Candidate: (none)" not in said


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    # A machine that was made a minute ago upgrades itself. Apt waits for some of its locks, when
    # asked to, and not for that of its lists.
    deadline = time.monotonic() + PATIENCE
    may_heal = True
    while True:
        done = _run("apt-get", *arguments)
        if may_heal and "dpkg was interrupted" in done.stdout:
            may_heal = False
            _run("dpkg", "--configure", "-a")
        elif "Could not get lock" not in done.stdout or time.monotonic() > deadline:
            return done
        else:
            time.sleep(1)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run what must not be broken off: in a session of its own, and Ctrl-C waits for its end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait()
        except KeyboardInterrupt:
            print(f"Waiting for {command[0]}, which must not be interrupted", flush=True)
            raise
        finally:
            process.wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    return subprocess.CompletedProcess(command, process.returncode, said)


@contextmanager
def _alone() -> Iterator[None]:
    """While apt runs: the only one of ours. Its own lock makes a second one fail, not wait."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_services() -> Iterator[None]:
    """While packages install: start nothing (invoke-rc.d asks POLICY), make no cluster."""
    made = []
    for path, text, mode in (
        (POLICY, f"#!/bin/sh\n{MARK}exit 101\n", 0o755),
        (CLUSTER_CONF, f"{MARK}create_main_cluster = false\n", 0o644),
    ):
        if not path.exists() or _is_ours(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(mode)
            made.append(path)
    try:
        yield
    finally:
        for path in made:
            path.unlink(missing_ok=True)
