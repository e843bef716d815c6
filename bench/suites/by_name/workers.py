"""What a second worker of the ingress gives where each has a core of its own.

Servers and load are pinned to the other cores, each worker to its own (sched_setaffinity(2)). On
fewer than four cores it says that it is no answer: two workers, the broker and the load need one
each.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground
from bench.load import orders, wrk
from bench.suites.ingress import CONNECTIONS, PATH, count
from bench.usage import cpu_seconds

SECONDS = 4
ENOUGH = 4  # cores
ONE, TWO = "1 worker", "2 workers, a core each"


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("workers")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("There is one core: nothing can be pinned beside it.")
    workers, others = (cores[-2:], cores[:-2]) if len(cores) > 2 else (cores[1:], cores[:1])
    # What this process starts has its cores: the servers, and wrk.
    with _on(others), ground(("wrk", "wrk")) as on:
        requests = on.folder / "requests"
        orders.write(requests, on.keys, 20_000)
        result.series = alternate(
            [
                Contender(ONE, _start(on, requests, workers[:1])),
                Contender(TWO, _start(on, requests, [workers[0], workers[-1]])),
            ],
            say,
        )
    result.counted.append("After each run the queue held every order that was answered 201.")
    if len(cores) < ENOUGH:
        result.counted.append(
            f"{len(cores)} cores: {len(others)} for servers and load, {len(workers)} for workers; "
            f"on fewer than {ENOUGH} this does not say what a second worker gives."
        )
    else:
        found = result.median(TWO, "orders/s") / result.median(ONE, "orders/s")
        result.at_least("a second worker with a core of its own", 1, found, "x")
    return result


def _start(on: Ground, requests: Path, cores: Sequence[int]) -> Callable[[], Mapping[str, float]]:
    """Start an ingress with a worker on each of the cores; returns what loads it."""
    url, ingress = on.start_ingress(workers=len(cores))
    children = Path(f"/proc/{ingress.pid}/task/{ingress.pid}/children").read_text().split()
    if len(children) != len(cores):
        raise RuntimeError(f"{len(children)} workers, and {len(cores)} were asked for")
    for worker, core in zip(children, cores, strict=True):
        for thread in Path(f"/proc/{worker}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    def measure() -> Mapping[str, float]:
        on.purge("orders.intake")
        warm = wrk.run(url + PATH, requests, seconds=1, connections=CONNECTIONS)
        before = cpu_seconds(ingress.pid)
        found = wrk.run(url + PATH, requests, seconds=SECONDS, connections=CONNECTIONS)
        used = cpu_seconds(ingress.pid) - before
        count(on, "orders.intake", int(warm["requests"] + found["requests"]))
        return {
            "orders/s": found["rate"],
            "ms p99": found["p99"],
            "us of the ingress an order": 1e6 * used / found["requests"],
        }

    return measure


@contextmanager
def _on(cores: Sequence[int]) -> Iterator[None]:
    """Have this thread, and whom it starts, run on some cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
