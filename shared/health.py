"""Health of a process without HTTP: while its threads turn it writes down how it stands.

The file of `HEALTH_FILE` has the Unix time until which it counts, and then a line for each thing
that is wrong. Whoever reads it is a container's check: `deploy/alive` in ours, which needs no
interpreter, and `python -m shared.health` in those of others, with the standard library alone. Both
exit with 0 while it counts and names nothing, and else say what is wrong.
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
    """Say that the process is alive, and how it stands; what cannot be written is logged.

    Args:
        path: the file to write; nothing happens when it is empty.
        standings: of all that it needs of the broker.
        more: what else is wrong, a sentence each; empty ones say nothing.
    """
    if not path:
        return
    wrong = [
        " ".join(f"{standing.part} is {standing.told.state}. {standing.told.reason}".split())
        for standing in standings
        if not standing.told.is_well
    ]
    wrong += filter(None, more)
    new = Path(f"{path}.new")
    lines = (int(time.time()) + FRESH_SECONDS, *wrong)
    try:
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(path)
    except OSError as error:
        # A disk that is full for a moment is not the end of a process that is at work.
        logging.getLogger(__name__).warning("HEALTH_FILE cannot be written: %s", error)


def wrong(path: str, now: float) -> list[str]:
    """What is wrong with the process that writes a file; nothing when it is healthy.

    Args:
        path: the file.
        now: a Unix time.
    """
    try:
        until, *said = Path(path).read_text().splitlines() or [""]
    except OSError:
        until, said = "", []
    if not until.isdecimal():
        return [f"Nothing has been written to {path or 'HEALTH_FILE, which is not set'}."]
    return said if now < int(until) else ["The process does not turn any more."]


def main() -> int:
    """Look at the process beside this one; returns the exit code."""
    found = wrong(os.environ.get("HEALTH_FILE", ""), time.time())
    for sentence in found:
        print(sentence)  # noqa: T201 - the engine keeps what a check prints
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
