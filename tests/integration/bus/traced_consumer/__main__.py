"""A consumer as a process of its own: each message it handles is a row of the table `trace`."""

import os
import sys
import time
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.message import Received
from shared.config.settings import Settings
from shared.service import Wiring, run


def handle(session: Session, received: Sequence[Received]) -> None:
    for message in received:
        session.execute(text("INSERT INTO trace VALUES (:id)"), {"id": str(message.id)})
    time.sleep(float(os.environ["HANDLER_SECONDS"]))


def wire(_: Settings) -> Wiring:
    return Wiring(
        [Subscription(queue=topology.ORDERS_INTAKE, handle=handle, consumer="tests", batch_size=20)]
    )


if __name__ == "__main__":
    sys.exit(run("tests", wire))
