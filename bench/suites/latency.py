"""The whole way at a steady rate: from the 201 to the mail server's 250; and what rest costs."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import quantiles

from bench import chains
from bench.contest import Result, Series
from bench.ground import Ground, ground, until
from bench.load import orders, steady
from bench.sampling import Sampling
from bench.usage import cpu_seconds, resident
from stack.supervisor import MODULES

OURS = "Order Fellow"
RATE, SECONDS = 1_500, 60
PARTS = 3  # the minute is told in so many
IDLE_SECONDS = 20
QUEUES = ("orders.intake", "notifier.orders", "notifier.bulk")


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("latency")
    with ground() as on, chains.ours(on) as chain:  # one process of each service
        requests = on.folder / "requests"
        orders.write(requests, on.keys, RATE * SECONDS)
        _rest(result, say, {name: chain.processes[name] for name in MODULES})
        before = {name: cpu_seconds(pid) for name, pid in chain.processes.items()}
        with Sampling(lambda: _waiting(on), 1.0) as waiting:
            sent = steady.run(chain.url, requests, rate=RATE, seconds=SECONDS)
        count = RATE * SECONDS
        until(lambda: on.count("email_deliveries") == count, f"{count} emails are sent")
        for name, pid in chain.processes.items():
            used = 1e6 * (cpu_seconds(pid) - before[name]) / count
            result.series.append(Series(name, "us of processor an order", (used,)))
        _compare(on, count)
        _tell(result, say, sent["answered_at"], chain.emails())
    _judge_queues(result, [count for _, count in waiting.samples])
    result.counted.append(
        f"{count:,} orders were answered 201, {count:,} recorded, and {count:,} customers had one "
        "email each."
    )
    return result


def _rest(result: Result, say: Callable[[str], None], services: Mapping[str, int]) -> None:
    """What everything costs while nothing comes."""
    time.sleep(5)  # what a start leaves to do
    samples = []
    for _ in range(PARTS):
        before = sum(map(cpu_seconds, services.values()))
        time.sleep(IDLE_SECONDS / PARTS)
        used = sum(map(cpu_seconds, services.values())) - before
        samples.append(100 * used / (IDLE_SECONDS / PARTS))
    memory = sum(map(resident, services.values())) / 1e6
    result.series.append(Series("all services at rest", "% of a core", tuple(samples)))
    result.series.append(Series("all services at rest", "MB", (memory,)))
    used = result.median("all services at rest", "% of a core")
    say(f"  at rest: {used:.2f}% of a core, {memory:.0f} MB")
    result.at_most("all services at rest", 2, used, "% of a core")
    result.at_most("all services at rest", 600, memory, "MB resident")


def _tell(
    result: Result,
    say: Callable[[str], None],
    answered: list[float],
    taken: dict[str, list[float]],
) -> None:
    waits: list[list[float]] = [[] for _ in range(PARTS)]
    for number, at in enumerate(answered):
        emails = taken.get(orders.email(number), [])
        if len(emails) != 1:
            raise RuntimeError(f"order {number} has {len(emails)} emails")
        waits[number * PARTS // len(answered)].append(1_000 * (emails[0] - at))
    cuts = [quantiles(part, n=100) for part in waits]
    for unit, index in (("ms p50", 49), ("ms p99", 98)):
        result.series.append(Series(OURS, unit, tuple(cut[index] for cut in cuts)))
    result.series.append(Series(OURS, "ms max", tuple(max(part) for part in waits)))
    p99 = max(cut[98] for cut in cuts)
    say(f"  201 to 250: p50 {result.median(OURS, 'ms p50'):.0f} ms, p99 {p99:.0f} ms")
    result.at_most(f"201 to the mail server's 250, p99 at {RATE:,}/s", 500, p99, "ms")


def _waiting(on: Ground) -> int:
    return sum(on.depth(queue) for queue in QUEUES) + on.count("outbox")


def _judge_queues(result: Result, samples: Sequence[int]) -> None:
    third = len(samples) // PARTS
    parts = [samples[n * third : (n + 1) * third] for n in range(PARTS)]
    means = [sum(part) / len(part) for part in parts]
    result.series.append(Series("waiting in queues and outbox", "messages", tuple(means)))
    # A queue that grows holds more at the end than the second before can have left there.
    result.at_most("waiting in the last third", RATE, means[-1], "messages")


def _compare(on: Ground, count: int) -> None:
    recorded = on.count("orders")
    if recorded != count:
        raise RuntimeError(f"{count} orders were accepted, and {recorded} are recorded")
