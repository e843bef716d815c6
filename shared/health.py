"""Health of a process without HTTP, in a file that it writes while its threads are running.

`HEALTH_FILE` contains the Unix time until which it is valid, and a line for each problem. It is
read by container health checks: `deploy/alive` in our images, which needs no interpreter, and
`python -m shared.health` elsewhere, which needs only the standard library. Both exit with 0 if the
file is valid and has no problems, and otherwise print them.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.bus.broker.standing import Standing

FRESH_SECONDS = 30


def beat(path: str, standings: "Iterable[Standing]", *more: str) -> None:
    """Write the health file; log if it cannot be written.

    Args:
        path: the file; empty to do nothing.
        standings: states of the connections to the broker.
        more: further problems, a sentence each; empty ones are ignored.
    """
    if not path:
        return
    wrong = [
        " ".join(f"{standing.part} is {standing.status.state}. {standing.status.reason}".split())
        for standing in standings
        if not standing.status.is_well
    ]
    wrong += filter(None, more)
    new = Path(f"{path}.new")
    lines = (int(time.time()) + FRESH_SECONDS, *wrong)
    try:
        new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        new.replace(path)
    except OSError as error:
        # A full disk must not end a process that works otherwise.
        logging.getLogger(__name__).warning("HEALTH_FILE cannot be written: %s", error)


def wrong(path: str, now: float) -> list[str]:
    """Return the problems in a health file; empty if the process is healthy.

    Args:
        path: the file.
        now: a Unix time.
    """
    try:
        until, *problems = Path(path).read_text(encoding="utf-8").splitlines() or [""]
    except OSError:
        until, problems = "", []
    if not until.isdecimal():
        return [f"Nothing has been written to {path or 'HEALTH_FILE, which is not set'}."]
    return problems if now < int(until) else ["The process no longer responds."]


def main() -> int:
    """Check the file of `HEALTH_FILE`; return the exit code."""
    found = wrong(os.environ.get("HEALTH_FILE", ""), time.time())
    for sentence in found:
        print(sentence)  # noqa: T201 - the container engine keeps the output
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
