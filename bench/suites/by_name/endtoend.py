"""The highest steady rate of whole chains, from the 201 to the mail server's 250, found by search.

A rate holds when each request is answered 201, each customer gets one email, 99 of a hundred within
half a second of when the request was due, and no more waits in the last third than a second brings.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import quantiles
from typing import NamedTuple

from bench import chains
from bench.chains import Chain
from bench.contest import Result, Series
from bench.ground import ground
from bench.load import orders, steady
from bench.sampling import Sampling

OURS, BEST, BASE = "Order Fellow", "Order Fellow, two notifiers", f"Order Fellow at {chains.BASE}"
SECONDS = 15.0  # of load at each rate
FINE = 1.08  # the search ends when what held and what did not are so near
LEAST = 20.0  # requests a second
P99 = 0.5  # seconds
FIRST, FIRST_OF_PEERS = 1_000.0, 100.0
DRAIN_SECONDS = 60.0


class Found(NamedTuple):
    """What a chain does at a rate.

    Attributes:
        problem: why the rate does not hold; empty when it does.
        p99: from when a request was due to the 250, in seconds.
        cpu: processor time an order, in seconds.
    """

    problem: str
    p99: float
    cpu: float


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("endtoend")
    rates: dict[str, float] = {}
    with ground() as on:
        places = {
            name: on.beside(f"chain{n}") for n, name in enumerate((OURS, BEST, *chains.PEERS))
        }
        contenders: dict[str, tuple[AbstractContextManager[Chain | None], float]] = {
            BASE: (chains.base(on), FIRST),
            OURS: (chains.ours(places[OURS]), FIRST),
            BEST: (chains.ours(places[BEST], notifier=1), FIRST),
        } | {name: (chains.peer(places[name], name), FIRST_OF_PEERS) for name in chains.PEERS}
        for name, (running, first) in contenders.items():
            with running as chain:
                if chain is None:
                    say(f"  {name}: the commit is not in this clone")
                    continue
                rates[name] = _search(result, name, chain, first, say)
                if name == OURS and BASE in rates:
                    # What an order costs depends on the rate, so it is taken at the same.
                    cpu = _try(chain, rates[BASE]).cpu
                    before = result.median(BASE, "us of processor an order")
                    ratio = 1e6 * cpu / before
                    result.at_most(f"processor an order, against {BASE}", 0.55, ratio, "x")
            if name in places:
                places[name].vacuum()  # what it has left to do is not the next one's
    for name, wanted in ({BASE: 2} | dict.fromkeys(chains.PEERS, 6)).items():
        if name in rates:
            result.at_least(f"against {name}", wanted, rates[OURS] / rates[name], "x")
    return result


def _search(
    result: Result, name: str, chain: Chain, first: float, say: Callable[[str], None]
) -> float:
    """The highest rate that holds, orders a second.

    Raises:
        RuntimeError: none does.
    """
    _try(chain, first / 4)  # what a first time costs
    held, broke, best = 0.0, math.inf, Found("", 0.0, 0.0)
    rate = first
    while broke / max(held, 1e-9) > FINE:
        found = _try(chain, rate)
        say(f"  {name} at {rate:,.0f}/s: {found.problem or f'p99 {1_000 * found.p99:.0f} ms'}")
        if not found.problem:
            held, best = rate, found
            rate = rate * 1.5 if math.isinf(broke) else math.sqrt(held * broke)
            continue
        broke = rate
        rate = math.sqrt(held * broke) if held else rate / 2
        if rate < LEAST:
            raise RuntimeError(
                f"{name} does not hold {broke:,.0f} orders a second: {found.problem}"
            )
    result.series += [
        Series(name, "orders/s", (held,)),
        Series(name, "ms p99", (1_000 * best.p99,)),
        Series(name, "us of processor an order", (1e6 * best.cpu,)),
    ]
    result.counted.append(
        f"{name}: at {held:,.0f}/s each order that was answered 201 was mailed once; of all tries "
        f"{chain.accepted:,} were accepted and {chain.count('orders'):,} are recorded."
    )
    return held


def _try(chain: Chain, rate: float) -> Found:
    count = int(rate * SECONDS)
    requests = chain.taken.with_name("requests")
    orders.write(requests, chain.keys, count, chain.sent)
    before, mailed = chain.cpu_seconds(), chain.count("email_deliveries")
    with Sampling(lambda: chain.count("email_deliveries") - mailed, 0.5) as watch:
        told = steady.attempt(chain.url, requests, rate=rate, seconds=SECONDS)
    began_at = told["began_at"]
    due_at = {
        orders.email(chain.sent + n): began_at + n / rate
        for n, at in enumerate(told["answered_at"])
        if at
    }
    chain.sent += count
    chain.accepted += len(due_at)
    emails = _drained(chain, due_at)
    cpu = (chain.cpu_seconds() - before) / max(len(due_at), 1)
    waits = [emails[address][0] - due for address, due in due_at.items() if address in emails]
    p99 = quantiles(waits, n=100)[98] if len(waits) > 1 else math.inf
    waiting = _waiting(watch.samples, rate, began_at)
    doubled = sum(len(emails.get(address, ())) > 1 for address in due_at)
    problems = (
        told["problem"],
        f"{len(due_at) - len(waits):,} have no email" if len(waits) < len(due_at) else "",
        f"{doubled:,} have more than one email" if doubled else "",
        f"p99 {1_000 * p99:,.0f} ms" if p99 >= P99 else "",
        f"{waiting:,.0f} wait in the last third" if waiting > rate else "",
    )
    return Found("; ".join(filter(None, problems)), p99, cpu)


def _drained(chain: Chain, due_at: Mapping[str, float]) -> Mapping[str, list[float]]:
    """When emails were accepted, by recipient, once each of these has one; or after a while."""
    emails: dict[str, list[float]] = {}
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        for address, times in chain.emails().items():
            emails.setdefault(address, []).extend(times)
        if due_at.keys() <= emails.keys() or time.monotonic() > deadline:
            return emails
        time.sleep(0.5)


def _waiting(samples: Sequence[tuple[float, int]], rate: float, began_at: float) -> float:
    """How many were due and not mailed, on average of the last third of the load."""
    third = (began_at + SECONDS * 2 / 3, began_at + SECONDS)
    found = [
        rate * (at - began_at) - mailed for at, mailed in samples if third[0] <= at <= third[1]
    ]
    return sum(found) / len(found) if found else math.inf
