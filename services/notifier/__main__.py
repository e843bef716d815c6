"""`python -m services.notifier`: sends the emails."""

import sys
from email.utils import parseaddr

from services.notifier import leases
from services.notifier.bounds import Bounds
from services.notifier.handlers import Notifier
from services.notifier.mail.mailer import Mailer
from services.notifier.rehearsal import RehearsedNotifier
from services.notifier.suppression.upkeep import keep, warn_of_refusals
from shared.bus.consume.subscription import Subscription
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db import retention
from shared.periodic import Periodic
from shared.service import Wiring, run

TELL_SECONDS = 60.0
KEEP_SECONDS = 3_600.0
"""Keys are rotated by a restart, which runs the job immediately."""


def wire(config: Settings) -> Wiring:
    """Return what this process runs; each queue has its own connections to the mail server."""
    subscriptions = [
        _subscription(config, topology.NOTIFIER_URGENT, connections=1, batch_size=8, patience=0.02),
        _subscription(
            config,
            topology.NOTIFIER_ORDERS,
            connections=config.smtp_connections,
            batch_size=config.email_batch_size,
        ),
        _subscription(
            config,
            topology.NOTIFIER_BULK,
            connections=config.smtp_bulk_connections,
            batch_size=config.email_batch_size,
        ),
    ]
    keeping = [
        Periodic(f"leases of {s.queue.name}", leases.RENEWED_EVERY, s.handle.keep)
        for s in subscriptions
        if isinstance(s.handle, Notifier)
    ]
    return Wiring(
        subscriptions,
        (
            *retention.jobs("notifier", config),
            Periodic("tell of refused addresses", TELL_SECONDS, warn_of_refusals),
            Periodic("keep suppressions", KEEP_SECONDS, keep),
            *keeping,
        ),
        uses={
            "mail": {
                "where": f"{config.smtp_host}:{config.smtp_port}",
                "starttls": config.smtp_starttls,
            }
        },
    )


def _subscription(
    config: Settings,
    queue: topology.Queue,
    *,
    connections: int,
    batch_size: int,
    patience: float = 0.05,
) -> Subscription:
    mailer = Mailer(config, connections, parseaddr(config.email_from)[1])
    bounds = Bounds(config.recipient_emails_per_day)
    return Subscription(
        queue=queue,
        consumer="services.notifier",
        handle=Notifier(mailer, config.email_from, bounds),
        rehearsed=lambda emails: RehearsedNotifier(emails, config.email_from, bounds),
        batch_size=batch_size,
        most_under_way=mailer.most_under_way,
        # A transaction of ten emails costs nearly as much as one of fifty.
        batch_seconds=patience,
        needs=mailer.check,
        keyed=True,  # an email's row has its fact's id
    )


if __name__ == "__main__":
    sys.exit(run("services.notifier", wire))
