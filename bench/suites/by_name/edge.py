"""Heads without an end, and one who sends orders one after the other beside them."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from bench.contest import Contender, Result, alternate
from bench.ground import ground
from bench.load import heads, orders
from bench.suites.ingress import PATH
from stack.folders import ROOT

SECONDS = 5
ALONE = "nobody beside"
MOST_MORE = 100  # ms
MOST_KEPT = 0.1


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("edge")
    with ground() as on:
        url, process = on.start_ingress()
        (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

        def beside(kind: str) -> Callable[[], Mapping[str, float]]:
            def measure() -> Mapping[str, float]:
                if kind == ALONE:
                    return _send_in_turn(url + PATH, on.keys[0])
                command = (sys.executable, "-m", "bench.load.heads", url, kind, str(SECONDS))
                with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as flood:
                    found = _send_in_turn(url + PATH, on.keys[0])
                    answered = json.loads(flood.communicate()[0])
                refused = answered.get("431", 0) + answered.get("414", 0)
                return {**found, "refused": refused, "lost": sum(answered.values()) - refused}

            return measure

        _send_in_turn(url + PATH, on.keys[0])  # to warm up
        before = _resident(worker)
        contenders = [Contender(kind, beside(kind)) for kind in (ALONE, *heads.KINDS)]
        result.series = alternate(contenders, say)
        kept = _resident(worker) / before - 1
    slowest = {kind: result.median(kind, "ms max") for kind in (ALONE, *heads.KINDS)}
    for kind in heads.KINDS:
        result.at_most(
            f"{kind}: slower than alone", MOST_MORE, slowest[kind] - slowest[ALONE], "ms"
        )
        result.at_most(f"{kind}: not refused in words", 0, result.median(kind, "lost"), "times")
    result.at_most("memory that stays", MOST_KEPT, kept, "of the worker's")
    return result


def _send_in_turn(url: str, key: str) -> Mapping[str, float]:
    """Send one order after the other over one connection; how long they took, in ms.

    Raises:
        RuntimeError: one was not accepted.
    """
    parts = urlsplit(url)
    took = []
    deadline = time.monotonic() + SECONDS
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        while time.monotonic() < deadline:
            content = orders.body(len(took))
            sent = orders.as_sent(url, orders.signed(key, content))
            began = time.perf_counter()
            connection.sendall(sent)
            answer = connection.recv(65_536)
            took.append((time.perf_counter() - began) * 1_000)
            if not answer.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(f"an order was not accepted: {answer!r:.200}")
    took.sort()
    return {
        "ms p50": took[len(took) // 2],
        "ms p99": took[len(took) * 99 // 100],
        "ms max": took[-1],
    }


def _resident(pid: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
