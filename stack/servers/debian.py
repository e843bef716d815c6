"""Installing Debian's packages, without letting them start services of their own."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOCK = Path("/run/order-fellow-apt.lock")
POLICY = Path("/usr/sbin/policy-rc.d")
CLUSTER_CONF = Path("/etc/postgresql-common/createcluster.conf")
PATIENCE = 300.0  # seconds
MARK = "# Order Fellow, while it installs packages\n"


def can_install() -> bool:
    """Whether packages can be installed: as root, with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*packages: str) -> None:
    """Install packages, but for those that this distribution does not have.

    Several that want to at once wait for each other, and for a stranger's apt.

    Raises:
        RuntimeError: apt could not; with the end of what it said.
    """
    print(f"Installing {', '.join(packages)} from the distribution's packages", flush=True)
    with _alone(), _no_services():
        _apt("update", "-q")
        packages = _known(packages)
        done = _apt("install", "-qy", "--no-install-recommends", *packages)
    if done.returncode != 0:
        raise RuntimeError(f"apt-get could not install {packages}:\n{done.stdout[-2000:]}")


def remove_leftovers() -> None:
    """Remove what a killed installation has left: with it no package would start its service."""
    if not can_install():
        return
    with _alone():
        for path in (POLICY, CLUSTER_CONF):
            if _is_ours(path):
                path.unlink()


def _is_ours(path: Path) -> bool:
    try:
        return MARK in path.read_text(errors="replace")
    except OSError:
        return False


def _known(packages: Sequence[str]) -> tuple[str, ...]:
    """Those that this distribution has: one that it lacks would keep all others out."""
    return tuple(name for name in packages if _has_candidate(name))


def _has_candidate(package: str) -> bool:
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
    while True:
        done = subprocess.run(
            ("apt-get", *arguments),
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if "Could not get lock" not in done.stdout or time.monotonic() > deadline:
            return done
        time.sleep(1)


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
