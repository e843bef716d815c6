"""Fairness: one account's flood, and how long another's few orders wait for their emails."""

import time
from collections.abc import Callable, Mapping
from uuid import UUID

from sqlalchemy import text

from bench import filling
from bench.contest import Contender, Result, alternate
from bench.ground import Ground, ground, tables, until
from bench.load.smtp_sink import NEEDS, smtp_sink

OURS, ONE_LANE = "Order Fellow", "in one lane"
FLOOD, FEW = 50_000, 10
PATIENCE = 150.0  # seconds
REPEATS = 2


def run(say: Callable[[str], None]) -> Result:
    """Measure."""
    result = Result("fairness")
    with ground(NEEDS) as on, smtp_sink(on.folder) as sink:
        contenders = [
            Contender(OURS, lambda: _flood(on, sink.port)),
            Contender(ONE_LANE, lambda: _flood(on, sink.port, ACCOUNT_EMAIL_BURST="1000000000")),
        ]
        result.series = alternate(contenders, say, REPEATS)
    result.counted.append(f"Of {FLOOD:,} and {FEW} orders each was mailed, once.")
    result.at_most("until the ten are mailed", 10, result.median(OURS, "s"), "s")
    return result


def _flood(on: Ground, smtp_port: int, **settings: str) -> Mapping[str, float]:
    """Send the flood and then the few, with everything running; the seconds until those are told.

    Args:
        on: where.
        smtp_port: of the mail server.
        settings: of the recorder.
    """
    on.empty(*tables())
    flooding, another = on.accounts()[:2]
    processes = [
        on.start_service("orders", **settings),
        on.start_service("relay"),
        on.start_service("notifier", SMTP_HOST="127.0.0.1", SMTP_PORT=str(smtp_port)),
    ]
    started = time.monotonic()
    _send(on, flooding, FLOOD)
    sent = time.monotonic()
    _send(on, another, FEW)
    until(lambda: _told(on, another) == FEW, f"the {FEW} are mailed", PATIENCE)
    waited = time.monotonic() - sent
    until(lambda: on.count("email_deliveries") == FLOOD + FEW, "all are mailed", PATIENCE)
    seconds = time.monotonic() - started
    for process in processes:
        on.stop(process)
    if on.depth("notifier.orders") or on.depth("notifier.bulk"):
        raise RuntimeError("more emails wait than orders were sent")
    return {"s": waited, "emails/s": (FLOOD + FEW) / seconds}


def _send(on: Ground, account: UUID, count: int) -> None:
    filling.fill(on.servers.amqp_url, filling.new_orders([account], count))


def _told(on: Ground, account: UUID) -> int:
    """How many of an account's orders were mailed."""
    with on.engine.connect() as connection:
        mailed = connection.scalar(
            text("""
                SELECT count(*) FROM orders JOIN email_deliveries
                ON email_deliveries.subject_id = CAST(orders.id AS text)
                WHERE orders.account_id = :account AND email_deliveries.state = 'sent'
            """),
            {"account": account},
        )
        return int(mailed or 0)
