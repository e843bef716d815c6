"""Health of a process without HTTP: while its threads turn it writes down how it stands.

`python -m shared.health`, a container's check, exits 0 while the file of `HEALTH_FILE` is fresh and
names nothing that is wrong; else it says what is. It needs the standard library alone, since a
container runs it every few seconds.
"""

import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.bus.broker.standing import Standing

FRESH_SECONDS = 30.0


def beat(path: str, standings: "Iterable[Standing]") -> None:
    """Say that the process is alive, and how it stands.

    Args:
        path: the file to write; nothing happens when it is empty.
        standings: of all that it needs of the broker.
    """
    if not path:
        return
    wrong = [
        f"{standing.part} is {standing.told.state}. {standing.told.reason}".strip()
        for standing in standings
        if not standing.told.is_well
    ]
    new = Path(f"{path}.new")
    new.write_text(json.dumps(wrong))
    new.replace(path)


def wrong(path: str, now: float) -> list[str]:
    """What is wrong with the process that writes a file; nothing when it is healthy.

    Args:
        path: the file.
        now: a Unix time.
    """
    try:
        age = now - Path(path).stat().st_mtime
        said = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return [f"Nothing has been written to {path or 'HEALTH_FILE, which is not set'}."]
    if age >= FRESH_SECONDS:
        return [f"The process has not turned for {age:.0f} s."]
    return [str(sentence) for sentence in said]


def main() -> int:
    """Look at the process beside this one; returns the exit code."""
    found = wrong(os.environ.get("HEALTH_FILE", ""), time.time())
    for sentence in found:
        print(sentence)  # noqa: T201 - the engine keeps what a check prints
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
