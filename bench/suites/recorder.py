"""The recorder: orders from their queue into PostgreSQL, with history and outbox rows, a second."""

from collections.abc import Callable, Mapping
from uuid import UUID

from sqlalchemy import text

from bench import filling, growing
from bench.contest import Contender, Result, alternate
from bench.environment import python
from bench.ground import Ground, ground, tables, until
from shared.ids import new_id

OURS, ONE_BY_ONE = "Order Fellow", "one transaction an order"
FULL, GROWN = "with 1M messages waiting", "with 100k accounts and 5M orders"
CELERY, DRAMATIQ, FASTSTREAM = "Celery", "Dramatiq", "FastStream"
ORDERS, FEW = 30_000, 2_000
WAITING = 1_000_000
GROWN_ACCOUNTS, GROWN_ORDERS = 100_000, 5_000_000

PEERS = {
    CELERY: ("celery", "-A", "bench.peers.celery_app", "worker", "--pool", "threads", "-c", "8",
             "--loglevel", "ERROR", "--without-gossip", "--without-mingle"),
    DRAMATIQ: ("dramatiq", "bench.peers.dramatiq_app", "--processes", "1", "--threads", "8"),
    FASTSTREAM: ("bench.peers.faststream_app",),
}  # fmt: skip


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("recorder")
    with ground() as on:
        full, grown = on.beside("waiting"), on.beside("grown")
        say(f"  filling a queue with {WAITING:,} orders")
        _fill(full, WAITING)
        say(f"  growing to {GROWN_ACCOUNTS:,} accounts and {GROWN_ORDERS:,} orders")
        growing.add_accounts(grown, GROWN_ACCOUNTS)
        growing.add_orders(grown, GROWN_ORDERS)
        record(grown, ORDERS, keep=True)
        contenders = [
            Contender(OURS, lambda: record(on, ORDERS)),
            Contender(FULL, lambda: record(full, ORDERS, filled=True)),
            Contender(GROWN, lambda: record(grown, ORDERS, keep=True)),
            Contender(ONE_BY_ONE, lambda: record(on, FEW, ORDER_BATCH_SIZE="1")),
            *(Contender(name, _peer(on, name.lower(), PEERS[name])) for name in PEERS),
        ]
        result.series = alternate(contenders, say)
    rate = {s.contender: s.median for s in result.series}
    result.counted.append("Every order that was in a queue was recorded, each once.")
    result.at_least("recorded in one process", 10_000, rate[OURS], "orders/s")
    result.at_least(f"against {ONE_BY_ONE}", 6, rate[OURS] / rate[ONE_BY_ONE], "x")
    result.at_least(FULL, 0.9, rate[FULL] / rate[OURS], "x")
    result.at_least(GROWN, 0.9, rate[GROWN] / rate[OURS], "x")
    return result


def record(
    on: Ground, count: int, *, filled: bool = False, keep: bool = False, **settings: str
) -> Mapping[str, float]:
    """Record `count` orders: of what waits already, or of what is put into the queue first.

    Args:
        on: where.
        count: how many.
        filled: whether to take what waits.
        keep: whether what is in the tables stays there.
        settings: of the recorder.
    """
    if not keep:
        on.empty(*tables())
    # What is waiting already has older ids than this, but then the table is empty.
    mark = UUID(int=0) if filled else new_id()
    if not filled:
        _fill(on, count)
    process = on.start_service("orders", **settings)
    until(lambda: on.orders_since(mark) >= count, f"{count} orders are recorded")
    on.stop(process)
    recorded = on.orders_since(mark)
    if not filled and (recorded != count or on.depth("orders.intake")):
        raise RuntimeError(f"{count} orders were in the queue, {recorded} were recorded")
    return {"orders/s": _rate(on, recorded)}


def _fill(on: Ground, count: int) -> None:
    created = filling.new_orders(on.accounts(), count)
    filling.fill(on.servers.amqp_url, created)


def _peer(on: Ground, name: str, command: tuple[str, ...]) -> Callable[[], Mapping[str, float]]:
    environment = {
        "AMQP_URL": on.servers.amqp_url,
        "DATABASE_URL": on.servers.database_url,
        "PEER_QUEUE": f"peer.{name}",
    }

    def measure() -> Mapping[str, float]:
        on.empty(*tables())
        filled = on.start(
            "-m", "bench.peers.fill", name, str(FEW), environment=environment, python=python()
        )
        if filled.wait(60) != 0:
            raise RuntimeError(f"could not fill the queue of {name}")
        process = on.start("-m", *command, environment=environment, python=python())
        until(lambda: on.count("orders") == FEW, f"{name} has recorded {FEW} orders")
        on.stop(process)
        return {"orders/s": _rate(on, FEW)}

    return measure


def _rate(on: Ground, count: int) -> float:
    """Orders a second, from the start of the first transaction to that of the last.

    By the database's own clock: `recorded_at` is when a row's transaction began.
    """
    with on.engine.connect() as connection:
        seconds, last = connection.execute(
            text("""
                WITH newest AS (SELECT recorded_at FROM orders ORDER BY id DESC LIMIT :count)
                SELECT EXTRACT(epoch FROM max(recorded_at) - min(recorded_at)),
                       (SELECT count(*) FROM newest
                        WHERE recorded_at = (SELECT max(recorded_at) FROM newest))
                FROM newest
            """),
            {"count": count},
        ).one()
    return float((count - last) / float(seconds))
