"""`python -m services.orders`: records orders."""

import sys

from services.orders.recording import record
from shared.bus import topology
from shared.bus.consumer import Subscription
from shared.config import Settings
from shared.service import Wiring, run


def wire(config: Settings) -> Wiring:
    """What this process does."""
    intake = Subscription(
        queue=topology.ORDERS_INTAKE,
        consumer="services.orders",
        handle=record,
        batch_size=config.order_batch_size,
    )
    return Wiring([intake])


if __name__ == "__main__":
    sys.exit(run("services.orders", wire))
