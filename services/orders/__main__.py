"""`python -m services.orders`: records orders."""

import sys
from functools import partial

from services.orders.handlers import record
from services.orders.lanes import Lanes
from services.orders.removal.sweeping import sweep_all
from services.orders.unknown import Unknown
from shared.bus.consume.batch import BatchHandler
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db import retention
from shared.periodic import Periodic
from shared.service import Wiring, run

PATIENCE = 0.05
"""Seconds an order waits for others: a transaction of ten costs nearly as much as of fifty."""


def wire(config: Settings) -> Wiring:
    """Return what this process runs."""
    intake = Subscription(
        queue=topology.ORDERS_INTAKE,
        consumer="services.orders",
        handle=_recorder(config),
        rehearsed=lambda _: _recorder(config),  # with separate counts
        batch_size=config.order_batch_size,
        batch_seconds=PATIENCE,
        shards=config.intake_shards,
        keyed=True,  # the history has the ids of recorded messages
    )
    rest = Periodic("rest of removed orders", retention.SECONDS, sweep_all)
    return Wiring([intake], (*retention.jobs("orders", config), rest))


def _recorder(config: Settings) -> BatchHandler:
    lanes = Lanes(config.account_email_burst, config.account_emails_per_second)
    return partial(record, lanes=lanes, unknown=Unknown(config.account_updates_waiting))


if __name__ == "__main__":
    sys.exit(run("services.orders", wire))
