"""The highest steady rate of whole chains, from the 201 to the mail server's 250, found by search.

A rate holds when each request is answered 201, 99 of a hundred customers have waited less than half
a second for their email, and no more waits in the last third than a second brings. What was
accepted is then counted: recorded and mailed, each once.
"""

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import quantiles
from typing import NamedTuple

from bench import chains
from bench.chains import Chain
from bench.contest import Result, Series
from bench.ground import ground, until
from bench.load import orders, steady

OURS, BEST, BASE = "Order Fellow", "Order Fellow, two notifiers", f"Order Fellow at {chains.BASE}"
SECONDS = 15.0  # of load at each rate
FINE = 1.08  # the search ends when what held and what did not are so near
LEAST = 20.0  # requests a second
P99 = 0.5  # seconds
FIRST, FIRST_OF_PEERS = 1_000.0, 100.0
DRAIN_SECONDS = 120.0


class Found(NamedTuple):
    """What a chain does at a rate.

    Attributes:
        problem: why the rate does not hold; empty when it does.
        p99: of 201 to 250, in seconds.
        cpu: processor time an order, in seconds.
    """

    problem: str
    p99: float
    cpu: float


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("endtoend")
    with ground() as on:
        contenders: dict[str, tuple[AbstractContextManager[Chain | None], float]] = {
            OURS: (chains.ours(on.beside("one")), FIRST),
            BASE: (chains.base(on), FIRST),
            BEST: (chains.ours(on.beside("mix"), notifier=1), FIRST),
        } | {
            name: (chains.peer(on.beside(f"peer{number}"), name), FIRST_OF_PEERS)
            for number, name in enumerate(chains.PEERS)
        }
        rates: dict[str, float] = {}
        for name, (running, first) in contenders.items():
            with running as chain:
                if chain is None:
                    say(f"  {name}: the commit is not in this clone")
                    continue
                rates[name] = _search(result, name, chain, first, say)
    ours = max(rates[OURS], rates[BEST])
    if rates.get(BASE):
        result.at_least(f"against {BASE}", 2, ours / rates[BASE], "x")
        costs = [result.median(name, "us of processor an order") for name in (OURS, BASE)]
        result.at_most("processor an order, against the same", 0.55, costs[0] / costs[1], "x")
    for name in chains.PEERS:
        if rates.get(name):
            result.at_least(f"against {name}", 6, ours / rates[name], "x")
    return result


def _search(
    result: Result, name: str, chain: Chain, first: float, say: Callable[[str], None]
) -> float:
    """The highest rate that holds, orders a second; 0 when none does."""
    _try(chain, first / 4)  # what a first time costs
    held, broke, best = 0.0, math.inf, Found("", 0.0, 0.0)
    rate = first
    while broke / max(held, 1e-9) > FINE and rate >= LEAST:
        found = _try(chain, rate)
        say(f"  {name} at {rate:,.0f}/s: {found.problem or f'p99 {1_000 * found.p99:.0f} ms'}")
        if found.problem:
            broke = rate
            rate = math.sqrt(held * broke) if held else rate / 2
        else:
            held, best = rate, found
            rate = rate * 1.5 if math.isinf(broke) else math.sqrt(held * broke)
    result.series += [
        Series(name, "orders/s", (held,)),
        Series(name, "ms p99", (1_000 * best.p99,)),
        Series(name, "us of processor an order", (1e6 * best.cpu,)),
    ]
    counts = {table: chain.count(table) for table in ("orders", "email_deliveries")}
    result.counted.append(
        f"{name}: {chain.accepted:,} orders were accepted, {counts['orders']:,} recorded and "
        f"{counts['email_deliveries']:,} mailed."
    )
    return held


def _try(chain: Chain, rate: float) -> Found:
    count = int(rate * SECONDS)
    requests = chain.taken.with_name("requests")
    orders.write(requests, chain.keys, count, chain.sent)
    before = chain.cpu_seconds()
    with _Watch(chain) as watch:
        told = steady.attempt(chain.url, requests, rate=rate, seconds=SECONDS)
    answered = {n: at for n, at in enumerate(told["answered_at"], chain.sent) if at}
    chain.sent += count
    chain.accepted += len(answered)
    drained = _is_drained(chain)
    cpu = (chain.cpu_seconds() - before) / max(len(answered), 1)
    emails = chain.emails()
    waits = [
        emails[orders.email(number)][0] - at
        for number, at in answered.items()
        if orders.email(number) in emails
    ]
    if told["problem"]:
        return Found(told["problem"], 0.0, cpu)
    if not drained:
        return Found(f"after {DRAIN_SECONDS:g} s more not all were mailed", 0.0, cpu)
    p99 = quantiles(waits, n=100)[98]
    last = watch.waiting(rate, told["began_at"])
    if p99 >= P99:
        return Found(f"p99 {1_000 * p99:,.0f} ms", p99, cpu)
    if last > rate:
        return Found(f"{last:,.0f} wait in the last third", p99, cpu)
    return Found("", p99, cpu)


def _is_drained(chain: Chain) -> bool:
    try:
        until(
            lambda: chain.count("email_deliveries") >= chain.accepted,
            "all are mailed",
            DRAIN_SECONDS,
            look_every=0.2,
        )
    except TimeoutError:
        return False
    return True


class _Watch:
    """Counts what was mailed, twice a second, for as long as the context lasts."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._before = chain.count("email_deliveries")
        self._samples: list[tuple[float, int]] = []

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def waiting(self, rate: float, began_at: float) -> float:
        """How many were due and not mailed, on average of the last third of the load."""
        times = (began_at + SECONDS * 2 / 3, began_at + SECONDS)
        found = [
            rate * (at - began_at) - mailed
            for at, mailed in self._samples
            if times[0] <= at <= times[1]
        ]
        return sum(found) / len(found) if found else math.inf

    def _run(self) -> None:
        while not self._stopping.wait(0.5):
            at = time.time()
            self._samples.append((at, self._chain.count("email_deliveries") - self._before))
