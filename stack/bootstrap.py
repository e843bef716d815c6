"""Make `.venv`: the first step of every make target, with nothing but the standard library.

Run by the system's own Python. Does nothing when the venv is as the lock file says.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements-dev.lock"
STAMP = VENV / "installed"
NEWEST = ("python3.14", "python3.13", "python3.12", "python3.11")


def main() -> None:
    """Bring the venv to what the lock file says."""
    if not sys.platform.startswith("linux"):
        sys.exit(
            "Order Fellow runs on Linux, also in WSL 2 or a container of Linux; this is "
            f"{sys.platform}"
        )
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything is checked
        _use_newer_python()
    if Path(sys.prefix).resolve() == VENV.resolve():
        _use_python_outside()
    sys.path.insert(0, str(ROOT))
    from stack.processes import stop_on_signals
    from stack.servers import debian

    stop_on_signals()
    debian.remove_leftovers()
    with _lock_file() as lock:
        wanted = _fingerprint()
        if not _is_alone(lock):
            # Two makes at once in one checkout: the second waits, and finds everything done.
            fcntl.flock(lock, fcntl.LOCK_SH)
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return
        if not _is_alone(lock):
            sys.exit(
                ".venv has to be made anew, and make run, demo, test or bench works with it in "
                "this checkout: stop it first. Or another make is at it: let it end first"
            )
        started = time.monotonic()
        _say("Setting up .venv (once; about a minute, depending on the network)")
        shutil.rmtree(VENV, ignore_errors=True)
        _make_venv()
        _pip("--require-hashes", "--requirement", str(LOCK))
        # The project itself: `fellow` lands in .venv/bin. Its build tool came with the lock file.
        _pip("--no-build-isolation", "--editable", str(ROOT))
        _see_that_it_works()
        STAMP.write_text(wanted)
        _say(f".venv is ready ({time.monotonic() - started:.0f} s)")


def _lock_file() -> TextIO:
    """Whoever works with `.venv` shares a lock on it (stack/folders.py); to change it takes all."""
    path = ROOT / ".venv.lock"
    try:
        return path.open("w")
    except OSError as error:
        if isinstance(error, PermissionError) and path.exists():
            sys.exit(f"{path} belongs to somebody else, as after `sudo make`: sudo make clean")
        sys.exit(f"{ROOT} cannot be written by you ({error.strerror}): work in a copy of your own")


def _is_alone(lock: TextIO) -> bool:
    """Whether nobody else works with `.venv`, or makes it: then nobody begins to, either."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _fingerprint() -> str:
    parts = (LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode())
    return hashlib.sha256(b"\0".join((*parts, str(ROOT).encode()))).hexdigest()


def _use_newer_python() -> None:
    for name in NEWEST:
        path = shutil.which(name)
        if path:
            os.execv(path, [path, *sys.argv])
    sys.exit(
        f"Order Fellow needs Python 3.11 or newer; this is {sys.version.split()[0]}, "
        "and no newer python3 is on the PATH."
    )


def _use_python_outside() -> None:
    """Of a shell in which `.venv` is activated: what is removed cannot make another."""
    path = Path(getattr(sys, "_base_executable", sys.executable))
    if not path.is_relative_to(sys.prefix):
        os.execv(path, [str(path), *sys.argv])


def _make_venv() -> None:
    made = _run(sys.executable, "-m", "venv", str(VENV))
    if made.returncode == 0:
        return
    if _run(sys.executable, "-c", "import ensurepip").returncode == 0:
        sys.exit(f"{sys.executable} cannot make a virtual environment:\n{made.stdout.strip()}")
    # Debian keeps what makes a venv in a package of its own.
    package = f"python3.{sys.version_info.minor}-venv"
    from stack.servers import debian

    if debian.can_install():
        try:
            debian.install(package)
        except debian.InstallError as error:
            _say(str(error))
        shutil.rmtree(VENV, ignore_errors=True)
        made = _run(sys.executable, "-m", "venv", str(VENV))
    if made.returncode != 0:
        sys.exit(
            f"{sys.executable} cannot make a virtual environment:\n{made.stdout.strip()}\n"
            f"On Debian or Ubuntu: apt-get install {package}"
        )


def _pip(*arguments: str) -> None:
    pip = str(VENV / "bin" / "python")
    # Not for the user alone, as somebody's pip.conf may have it.
    options = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-user")
    installed = _run(pip, "-m", "pip", "install", *options, *arguments)
    if installed.returncode != 0:
        sys.exit(f"pip could not install what is needed:\n{installed.stdout.strip()}")


def _see_that_it_works() -> None:
    """Somebody's pip.conf can have sent everything elsewhere, and pip is content."""
    done = _run(str(VENV / "bin" / "python"), "-I", "-c", "import rich, shared")
    if done.returncode != 0:
        sys.exit(
            f"pip has installed nothing in .venv; see `pip config list`:\n{done.stdout.strip()}"
        )


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
