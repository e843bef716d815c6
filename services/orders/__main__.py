"""`python -m services.orders`: records orders."""

import sys
from functools import partial

from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.consume.batch import BatchHandler
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db import retention
from shared.service import Wiring, run

PATIENCE = 0.05
"""Seconds an order waits for others: a transaction costs nearly the same for ten as for fifty."""


def wire(config: Settings) -> Wiring:
    """What this process does."""
    intake = Subscription(
        queue=topology.ORDERS_INTAKE,
        consumer="services.orders",
        handle=_recorder(config),
        rehearsed=lambda _: _recorder(config),  # one that counts for itself
        batch_size=config.order_batch_size,
        batch_seconds=PATIENCE,
        keyed=True,  # the history has the ids of what was recorded
    )
    return Wiring([intake], retention.jobs("orders", config))


def _recorder(config: Settings) -> BatchHandler:
    lanes = Lanes(config.account_email_burst, config.account_emails_per_second)
    return partial(record, lanes=lanes, unknown=Unknown(config.account_updates_waiting))


if __name__ == "__main__":
    sys.exit(run("services.orders", wire))
