"""`make clean`'s part outside the checkout: servers that a killed run left, and their data.

With the standard library alone, since a setup that failed has left no more. The Makefile goes on
after whatever else than `REFUSED`: a Python that cannot run this is there for nobody's data.
"""

import sys
import time

from stack.folders import ROOT, is_venv_held
from stack.servers import data, debian

REFUSED = 3  # an exit code that is not Python's own
PATIENCE_SECONDS = 10.0


def main() -> int:
    """Remove all server data of this checkout; returns the exit code."""
    debian.remove_leftovers()
    try:
        if is_venv_held() or _stay_in_use():
            print(
                "make run, demo, test, bench or a setup is at work here: stop it first",
                file=sys.stderr,
            )
            return REFUSED
        data.clear_all()
    except data.ForeignFolderError as error:
        print(error, file=sys.stderr)
        return REFUSED
    if data.docker_is_there():
        try:
            from stack.servers import containers
        except ModuleNotFoundError:
            owner = data.owner()
            if (ROOT / ".venv").exists():  # else it was cleaned, or never set up
                print(
                    f"Docker may keep {owner}-rabbitmq and {owner}-postgres, which are removed by "
                    f"`docker volume rm`: .venv, which does it, is not whole.",
                    file=sys.stderr,
                )
            return 0
        containers.remove_abandoned(data.owner())
        containers.remove_volumes(data.owner())
    return 0


def _stay_in_use() -> bool:
    """Return whether data folders are still in use after a moment.

    The start of another checkout holds what a killed run has left here, while it removes it.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while data.in_use():
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.1)
    return False


if __name__ == "__main__":
    sys.exit(main())
