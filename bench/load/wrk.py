"""wrk: as many requests as the other side answers, over kept connections (a closed loop)."""

import json
import os
import subprocess
from pathlib import Path
from typing import cast

SCRIPT = Path(__file__).with_name("wrk.lua")


def run(url: str, requests: Path, *, seconds: int, connections: int = 64) -> dict[str, float]:
    """Load `url` and return what wrk measured.

    Args:
        url: where every request goes.
        requests: a file of signed requests; see `orders.write`.
        seconds: for how long.
        connections: how many requests are under way at once.

    Returns:
        `requests` answered, `seconds`, `rate` a second, `p50`, `p99` and `max` in milliseconds.

    Raises:
        RuntimeError: a request was refused or broke: there is nothing to compare then.
    """
    command = ("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url)
    environment = os.environ | {"REQUESTS": str(requests)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = cast("dict[str, float]", json.loads(done.stdout.splitlines()[-1]))
    if found["refused"] or found["broken"]:
        raise RuntimeError(f"{url} refused or broke: {found}")
    return found | {"rate": found["requests"] / found["seconds"]}
