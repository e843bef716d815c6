"""`python -m services.secrets`: issues, rotates and revokes webhook secrets."""

import sys
from typing import Any, get_args

from services.secrets.handlers import (
    Ended,
    on_approved,
    on_ended,
    on_revoke,
    on_revoked,
    on_rotate,
)
from services.secrets.policies import on_block, on_limit
from services.secrets.resealing import Resealing
from services.secrets.schedule import tick
from shared.bus.consume.batch import Handler, each
from shared.bus.consume.rehearsals.trying import by_itself
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.bus.contract.events import (
    AccountBlock,
    Event,
    KycApproved,
    KycRevoked,
    SecretRevoke,
    SecretRotate,
    WebhookLimit,
)
from shared.config.settings import Settings
from shared.periodic import Periodic
from shared.service import Wiring, run

# Keys are rotated rarely, and by a restart, which runs the job immediately.
RESEAL_SECONDS = 60.0


def wire(config: Settings) -> Wiring:
    """Return what this process runs."""
    approvals = each({KycApproved: on_approved, KycRevoked: on_revoked})
    handlers: dict[type[Event], Handler[Any]] = {
        SecretRotate: on_rotate,
        SecretRevoke: on_revoke,
        WebhookLimit: on_limit,
        AccountBlock: on_block,
    }
    commands = each(handlers | dict.fromkeys(get_args(Ended), on_ended))
    return Wiring(
        subscriptions=(
            Subscription(
                queue=topology.SECRETS_ISSUE,
                consumer="services.secrets",
                handle=approvals,
                rehearsed=by_itself(approvals),
            ),
            Subscription(
                queue=topology.SECRETS_ROTATE,
                consumer="services.secrets",
                handle=commands,
                rehearsed=by_itself(commands),
                in_order=True,
            ),
        ),
        jobs=(
            Periodic("schedule", config.secret_schedule_seconds, tick),
            Periodic("reseal", RESEAL_SECONDS, Resealing().run),
        ),
    )


if __name__ == "__main__":
    sys.exit(run("services.secrets", wire))
