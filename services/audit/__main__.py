"""`python -m services.audit`: writes the audit log."""

import sys

from services.audit.handlers import write
from services.audit.parsing import decode_fact
from shared.bus.consume.rehearsals.trying import by_itself
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.service import Wiring, run


def wire(_: Settings) -> Wiring:
    """Return the subscriptions of this process."""
    facts = Subscription(
        queue=topology.AUDIT,
        consumer="services.audit",
        handle=write,
        rehearsed=by_itself(write),
        decode=decode_fact,
        keyed=True,  # a row has its fact's id
    )
    return Wiring([facts])


if __name__ == "__main__":
    sys.exit(run("services.audit", wire))
