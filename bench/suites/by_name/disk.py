"""A slow disk: the ingress where each sync takes 6 ms more, against the same without; what helps.

RabbitMQ and PostgreSQL run with `bench/load/slow_sync.c` before the C library (LD_PRELOAD): what
Erlang's file functions and PostgreSQL call to have a write on the disk is done, and returns later.
No device is slowed, so all else of a slow disk (its reads, its write cache) is not in this.
"""

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground, need
from bench.load import orders, wrk
from bench.sampling import Sampling
from bench.suites.ingress import CONNECTIONS, PATH, count
from bench.suites.recorder import record
from stack.servers import data

SLOWER = 6_000  # us a sync
SECONDS = 6
LOOK_SECONDS = 0.25
SOFT_LIMIT, WIDE = 32, 1_024
"""From how many unconfirmed at a quorum queue the broker slows a channel: its default, and more."""
PROGRAMS = (("wrk", "wrk"), ("cc", "build-essential"))
SOURCE = Path(__file__).parents[2] / "load" / "slow_sync.c"


@dataclass(frozen=True)
class Setting:
    """How it is run.

    Attributes:
        name: in the table.
        slower: by how many microseconds a sync takes longer.
        connections: of senders, each of which waits for its answer.
        workers: of the ingress; each has one channel.
        soft_limit: `quorum_commands_soft_limit` of the broker.
    """

    name: str
    slower: int = SLOWER
    connections: int = CONNECTIONS
    workers: int = 1
    soft_limit: int = SOFT_LIMIT


MANY = 8 * CONNECTIONS  # more than the broker gives a connection credit for, 400
FAST, SLOW, SLOW_MANY = "this disk", "6 ms a sync more", f"the same, {MANY} connections"
SETTINGS = (
    Setting(FAST, slower=0),
    Setting(SLOW),
    Setting(f"the same, {WIDE} as the soft limit", soft_limit=WIDE),
    Setting("the same, 2 workers", workers=2),
    Setting(f"{FAST}, {MANY} connections", slower=0, connections=MANY),
    Setting(SLOW_MANY, connections=MANY),
    Setting(f"{SLOW_MANY} and {WIDE}", connections=MANY, soft_limit=WIDE),
)

ORDERS = 10_000
RECORDERS: dict[str, tuple[int, dict[str, str]]] = {
    "recorder, this disk": (0, {}),
    "recorder, 6 ms a sync more": (SLOWER, {}),
    "the same, batches of 2,000": (SLOWER, {"ORDER_BATCH_SIZE": "2000"}),
}


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("disk")
    need(*PROGRAMS)
    with _slow_syncs() as (environment, slow), ground(environment=environment) as on:
        requests = on.folder / "requests"
        orders.write(requests, on.keys, 20_000)
        contenders = [
            Contender(setting.name, lambda setting=setting: _load(on, requests, slow, setting))
            for setting in SETTINGS
        ]
        contenders += [
            Contender(name, lambda given=given: _record(on, slow, *given))
            for name, given in RECORDERS.items()
        ]
        result.series = alternate(contenders, say)
    result.counted.append("After each run the queue held every order that was answered 201.")
    found = result.median(SLOW_MANY, "orders/s") / result.median(SLOW, "orders/s")
    result.at_least(f"slow, {MANY} connections against {CONNECTIONS}", 1.5, found, "x")
    return result


def _load(
    on: Ground, requests: Path, slow: Callable[[int], None], setting: Setting
) -> Mapping[str, float]:
    broker = on.servers.broker
    if broker is None:
        raise RuntimeError("the benchmarks need servers of their own: unset AMQP_URL")
    # Channels read it as they begin.
    broker.evaluate(
        f"application:set_env(rabbit, quorum_commands_soft_limit, {setting.soft_limit})"
    )
    on.purge("orders.intake")
    base, ingress = on.start_ingress(workers=setting.workers)
    slow(setting.slower)
    try:
        url, connections = base + PATH, setting.connections
        warm = wrk.run(url, requests, seconds=1, connections=connections)
        with Sampling(lambda: _in_flow(broker.evaluate(STATES)), LOOK_SECONDS) as flow:
            found = wrk.run(url, requests, seconds=SECONDS, connections=connections)
    finally:
        slow(0)
    count(on, "orders.intake", int(warm["requests"] + found["requests"]), connections)
    on.stop(ingress)
    looks = [in_flow for _, in_flow in flow.samples]
    return {
        "orders/s": found["rate"],
        "ms p50": found["p50"],
        "ms p99": found["p99"],
        "% in flow": 100 * sum(looks) / len(looks),
    }


def _record(
    on: Ground, slow: Callable[[int], None], slower: int, settings: Mapping[str, str]
) -> Mapping[str, float]:
    on.purge("orders.intake")
    slow(slower)
    try:
        return record(on, ORDERS, **settings)
    finally:
        slow(0)


# As `rabbitmqctl list_connections user state` has it: for five seconds after it was held up too.
STATES = (
    "[State || Connection <- rabbit_networking:connections(), "
    '[{user, <<"fellow_ingress">>}, {state, State}] <- '
    "[catch rabbit_reader:info(Connection, [user, state])]]"
)


def _in_flow(states: str) -> int:
    if states == "[]":
        raise RuntimeError("the broker knows no connection of the ingress")
    return int("flow" in states)


@contextmanager
def _slow_syncs() -> Iterator[tuple[Mapping[str, str], Callable[[int], None]]]:
    """The variables that the servers are started with, and what sets the delay, in microseconds."""
    folder = data.throwaway("slow-disk", durable=True)  # PostgreSQL's user can get there
    library, delay = folder / "slow_sync.so", folder / "delay"
    subprocess.run(("cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"), check=True)
    delay.write_bytes(bytes(4))
    for path in (library, delay):
        path.chmod(0o644)

    def slow(microseconds: int) -> None:
        with delay.open("r+b") as file:
            file.write(struct.pack("=I", microseconds))

    try:
        yield {"LD_PRELOAD": str(library), "SYNC_DELAY_FILE": str(delay)}, slow
    finally:
        shutil.rmtree(folder, ignore_errors=True)
