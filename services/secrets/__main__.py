"""`python -m services.secrets`: issues, rotates and revokes webhook secrets."""

import sys

from services.secrets.issuing import on_approved, on_revoke, on_revoked, on_rotate
from services.secrets.schedule import tick
from shared.bus import topology
from shared.bus.batch import each
from shared.bus.consumer import Subscription
from shared.bus.events import KycApproved, KycRevoked, SecretRevoke, SecretRotate
from shared.config import settings
from shared.service import Periodic, run

SUBSCRIPTIONS = (
    Subscription(
        queue=topology.SECRETS_ISSUE,
        consumer="services.secrets",
        handle=each({KycApproved: on_approved, KycRevoked: on_revoked}),
    ),
    Subscription(
        queue=topology.SECRETS_ROTATE,
        consumer="services.secrets",
        handle=each({SecretRotate: on_rotate, SecretRevoke: on_revoke}),
    ),
)


def main() -> int:
    """Run until told to stop; returns the exit code."""
    schedule = Periodic("schedule", settings().secret_schedule_seconds, tick)
    return run("services.secrets", SUBSCRIPTIONS, [schedule])


if __name__ == "__main__":
    sys.exit(main())
