"""`python -m services.kyc`: applies the decisions of operators."""

import sys

from services.kyc.handlers import decide
from services.kyc.parsing import decode_decision
from shared.bus.consume.batch import each
from shared.bus.consume.rehearsals.trying import by_itself
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.events import KycDecide
from shared.config.settings import Settings
from shared.service import Wiring, run


def wire(_: Settings) -> Wiring:
    """Return the subscriptions of this process."""
    handle = each({KycDecide: decide})
    decisions = Subscription(
        queue=topology.KYC_DECISIONS,
        consumer="services.kyc",
        handle=handle,
        rehearsed=by_itself(handle),
        decode=decode_decision,
        in_order=True,
    )
    return Wiring([decisions])


if __name__ == "__main__":
    sys.exit(run("services.kyc", wire))
