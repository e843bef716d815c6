"""services.orders, with a message that kills its process each time it is handled."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from services.orders.__main__ import wire
from shared.bus.consume.batch import Failures
from shared.bus.contract.message import Received
from shared.config.settings import Settings
from shared.service import Wiring, run

POISON = "POISON"


def poisonous(config: Settings) -> Wiring:
    (intake,) = wire(config).subscriptions

    def handle(session: Session, messages: Sequence[Received[Any]]) -> Failures | None:
        if any(getattr(message.data, "item_summary", "") == POISON for message in messages):
            os.kill(os.getpid(), signal.SIGKILL)
        return intake.handle(session, messages)

    return Wiring([replace(intake, handle=handle)])


if __name__ == "__main__":
    sys.exit(run("services.orders", poisonous))
