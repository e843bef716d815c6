"""Liveness of a process without HTTP: it touches a file while all its threads turn.

`python -m shared.health` exits 0 while the file of `HEALTH_FILE` is fresh, for a container's check.
"""

import sys
import time
from pathlib import Path

from shared.config import settings

FRESH_SECONDS = 30.0


def beat(path: str) -> None:
    """Say that the process is alive.

    Args:
        path: the file to touch; nothing happens when it is empty.
    """
    if path:
        Path(path).touch()


def is_fresh(path: str, now: float) -> bool:
    """Whether the file was touched within `FRESH_SECONDS` (seconds) before `now` (a Unix time)."""
    try:
        return now - Path(path).stat().st_mtime < FRESH_SECONDS
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_fresh(settings().health_file, time.time()) else 1)
