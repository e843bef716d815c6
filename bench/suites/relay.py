"""The relay: rows of the outbox, published with confirms and deleted, a second."""

import time
from collections.abc import Callable, Mapping

from sqlalchemy.orm import Session

from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground, until
from bench.load import facts
from shared.bus import outbox

OURS, ONE_BY_ONE = "Order Fellow", "one confirm and one transaction a row"
ROWS, FEW = 40_000, 2_000
QUEUE = "notifier.orders"


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("relay")
    with ground() as on:
        contenders = [
            Contender(OURS, lambda: _ours(on)),
            Contender(ONE_BY_ONE, lambda: _one_by_one(on)),
        ]
        result.series = alternate(contenders, say)
    result.counted.append(
        "After each run the outbox was empty and the notifier's queue held each of its rows once."
    )
    rate = result.median(OURS, "rows/s")
    result.at_least("outbox to confirmed to deleted", 12_000, rate, "rows/s")
    result.at_least(f"against {ONE_BY_ONE}", 6, rate / result.median(ONE_BY_ONE, "rows/s"), "x")
    return result


def _ours(on: Ground) -> Mapping[str, float]:
    relay = on.start_service("relay")
    _fill(on, 1_000)
    until(lambda: on.count("outbox") == 0, "the relay is warm")
    on.purge(QUEUE)
    begin = _fill(on, ROWS)
    until(lambda: on.count("outbox") == 0, f"{ROWS} rows are relayed")
    seconds = time.monotonic() - begin
    on.stop(relay)
    _count(on, ROWS)
    return {"rows/s": ROWS / seconds}


def _one_by_one(on: Ground) -> Mapping[str, float]:
    on.purge(QUEUE)
    _fill(on, FEW)
    environment = {"AMQP_URL": on.servers.amqp_url, "DATABASE_URL": on.servers.database_url}
    begin = time.monotonic()
    peer = on.start("-m", "bench.peers.relaying", environment=environment)
    until(lambda: on.count("outbox") < FEW, "it has begun")
    left, begin = on.count("outbox"), time.monotonic()
    until(lambda: on.count("outbox") == 0, f"{FEW} rows are relayed")
    seconds = time.monotonic() - begin
    on.stop(peer)
    _count(on, FEW)
    return {"rows/s": left / seconds}


def _fill(on: Ground, count: int) -> float:
    """Write facts into the outbox in one transaction; returns when it was committed."""
    with Session(on.engine) as session:
        messages = list(facts.recorded(count))
        for start in range(0, count, 1_000):
            outbox.add(session, messages[start : start + 1_000])
        session.commit()
    return time.monotonic()


def _count(on: Ground, count: int) -> None:
    held = on.depth(QUEUE)
    if held != count:
        raise RuntimeError(f"{count} rows were relayed, and {held} messages are in {QUEUE}")
