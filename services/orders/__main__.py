"""`python -m services.orders`: records orders."""

import sys
from functools import partial

from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.unknown import Unknown
from shared.bus.consume.consumer import Subscription
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db import retention
from shared.service import Wiring, run

PATIENCE = 0.05
"""Seconds an order waits for others: a transaction costs nearly the same for ten as for fifty."""


def wire(config: Settings) -> Wiring:
    """What this process does."""
    lanes = Lanes(config.account_email_burst, config.account_emails_per_second)
    intake = Subscription(
        queue=topology.ORDERS_INTAKE,
        consumer="services.orders",
        handle=partial(record, lanes=lanes, unknown=Unknown(config.account_updates_waiting)),
        batch_size=config.order_batch_size,
        batch_seconds=PATIENCE,
        keyed=True,  # the history has the ids of what was recorded
    )
    return Wiring([intake], retention.jobs("orders", config))


if __name__ == "__main__":
    sys.exit(run("services.orders", wire))
