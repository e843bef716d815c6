"""`python -m tests.programs [NAME ...]`: what tests run besides servers is there before they start.

As root on Debian what is missing is installed; everybody else is told, once, what to install.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from stack.folders import ROOT, hold_venv
from stack.servers import debian

# By what a program is called: the packages that it comes in.
PACKAGES = {
    "amqp-publish": ("amqp-tools",),
    "chromium-headless-shell": ("chromium-headless-shell",),
    "curl": ("curl",),
    "faketime": ("faketime",),
    "go": ("golang-go",),
    "haproxy": ("haproxy",),
    "javac": ("default-jdk-headless",),
    "nginx": ("nginx",),
    "node": ("nodejs",),
    "npm": ("npm",),
    "openssl": ("openssl",),
    "php": ("php-cli", "php-curl"),
    "ruby": ("ruby",),
}
BROWSER = "chromium-headless-shell"
"""Chromium without its own windows, which cost as much processor time as what tests look at."""
SNAP = (
    " (Ubuntu has chromium as a snap alone, which does not do: there google-chrome-stable, of "
    "Google's own archive)"
)
OTHERS = {BROWSER: ("chromium", "chromium-browser", "google-chrome")}
"""What does as well, where the program itself cannot be had; the first is a package too."""
TRIED = ROOT / ".stack" / "tried"
"""By name: the programs that were tried to be had where another does as well."""


class MissingError(Exception):
    """Programs are missing and cannot be installed from here; the message says what would help."""


def program(name: str) -> str:
    """Where a program of `PACKAGES` is; installed when it is missing and can be.

    Raises:
        MissingError: it cannot.
    """
    if _find(name) is None:
        ensure([name])
    found = _find(name)
    assert found is not None
    return found


def ensure(names: Collection[str] = PACKAGES) -> None:
    """Have programs of `PACKAGES`, themselves where that can be, else what does as well.

    Raises:
        MissingError: some are not here, and cannot be installed from here.
    """
    missing = _missing(names)
    if debian.can_install():
        if missing:
            debian.install(*_packages(missing))
        others = [OTHERS[name][0] for name in _missing(missing) if name in OTHERS]
        if others := list(filter(debian.has_candidate, others)):
            debian.install(*others)
        for name in filter(_is_another, names):
            _try_once(name)
        missing = _missing(missing)
    if missing:
        raise MissingError(
            f"The tests run {', '.join(missing)}, which this machine lacks. On Debian or Ubuntu: "
            f"sudo apt-get install {' '.join(_packages(missing))}"
            + (SNAP if BROWSER in missing else "")
        )


def _missing(names: Collection[str]) -> list[str]:
    return [name for name in names if _find(name) is None]


def _try_once(name: str) -> None:
    """Install a program in whose place another does: without a network apt tries for minutes."""
    tried = TRIED / name
    if tried.exists() or not all(map(debian.has_candidate, PACKAGES[name])):
        return
    tried.parent.mkdir(parents=True, exist_ok=True)
    tried.touch()
    try:
        debian.install(*PACKAGES[name])
    except debian.InstallError:
        print(f"{name} cannot be installed, and costs less: `make clean` has it tried anew")


def _packages(names: Collection[str]) -> list[str]:
    return [package for name in names for package in PACKAGES[name]]


def _is_another(name: str) -> bool:
    found = _find(name)
    return found is not None and Path(found).name in OTHERS.get(name, ())


def _find(name: str) -> str | None:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # Debian keeps servers beside the others, where only root's PATH leads.
    folders += [str(Path(each).with_name("sbin")) for each in folders if Path(each).name == "bin"]
    names = (name, *OTHERS.get(name, ()))
    called = (shutil.which(each, path=os.pathsep.join(folders)) for each in names)
    found = next(filter(None, called), None)
    if found is not None and name == "php":
        modules = subprocess.run((found, "-m"), capture_output=True, text=True, check=False).stdout
        return found if "curl" in modules.split() else None
    return found


def main() -> int:
    """Have those that are named, or them all; returns the exit code."""
    hold_venv()
    try:
        ensure(sys.argv[1:] or PACKAGES)
    except (MissingError, debian.InstallError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
