"""`python -m tests.programs [NAME ...]`: what tests run besides servers is there before they start.

As root on Debian what is missing is installed; everybody else is told, once, what to install.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from stack.servers import debian

# By what a program is called: the packages that it comes in.
PACKAGES = {
    "amqp-publish": ("amqp-tools",),
    "chromium": ("chromium",),
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
SNAP = (
    " (Ubuntu has chromium as a snap alone, which does not do: there google-chrome-stable, of "
    "Google's own archive)"
)
ELSEWHERE = {"chromium": ("chromium-browser", "google-chrome")}


class MissingError(Exception):
    """Programs are missing and cannot be installed from here; the message says what would help."""


def program(name: str) -> str:
    """Where a program of `PACKAGES` is; installed when it is missing and can be.

    Raises:
        MissingError: it cannot.
    """
    ensure([name])
    found = _find(name)
    assert found is not None
    return found


def ensure(names: Collection[str] = PACKAGES) -> None:
    """Have programs of `PACKAGES`.

    Raises:
        MissingError: some are not here, and cannot be installed from here.
    """
    missing = [name for name in names if _find(name) is None]
    if not missing:
        return
    packages = [package for name in missing for package in PACKAGES[name]]
    if debian.can_install():
        debian.install(*packages)
        missing = [name for name in missing if _find(name) is None]
        packages = [package for name in missing for package in PACKAGES[name]]
    if missing:
        raise MissingError(
            f"The tests run {', '.join(missing)}, which this machine lacks. On Debian or Ubuntu: "
            f"sudo apt-get install {' '.join(packages)}" + (SNAP if "chromium" in missing else "")
        )


def _find(name: str) -> str | None:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # Debian keeps servers beside the others, where only root's PATH leads.
    folders += [str(Path(each).with_name("sbin")) for each in folders if Path(each).name == "bin"]
    called = (
        shutil.which(each, path=os.pathsep.join(folders))
        for each in (name, *ELSEWHERE.get(name, ()))
    )
    found = next(filter(None, called), None)
    if found is not None and name == "php":
        modules = subprocess.run((found, "-m"), capture_output=True, text=True, check=False).stdout
        return found if "curl" in modules.split() else None
    return found


def main() -> int:
    """Have those that are named, or them all; returns the exit code."""
    try:
        ensure(sys.argv[1:] or PACKAGES)
    except (MissingError, debian.InstallError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
