"""Reseals second factors under the current key after a key rotation."""

import structlog
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from services.ops.users.second_factor import context
from shared.db.models import OpsSecondFactor
from shared.periodic import Periodic, keep_running
from shared.security.encryption import CannotOpenError, second_factor_sealer

SECONDS = 3600.0

log = structlog.get_logger()


async def keep_sealing() -> None:
    """Run `seal_again` each hour, until cancelled."""
    job = Periodic("reseal second factors", SECONDS, seal_again)
    await keep_running(job.name, job.seconds, job.once)


def seal_again(session: Session) -> int:
    """Seal under the current key what an older key sealed; return the number of users.

    Secrets that no listed key opens stay unmodified, and are logged.
    """
    sealer = second_factor_sealer()
    current = sealer.current_key_id
    length = len(current)
    outdated = session.scalars(
        select(OpsSecondFactor)
        .where(
            or_(
                func.substr(OpsSecondFactor.sealed, 1, length) != current,
                func.substr(OpsSecondFactor.offered, 1, length) != current,
            )
        )
        .with_for_update()
    )
    count, closed = 0, 0
    for factor in outdated:
        bound_to = context(factor.user_id)
        try:
            for name in ("sealed", "offered"):
                if (value := getattr(factor, name)) is not None:
                    setattr(factor, name, sealer.seal(sealer.open(value, bound_to), bound_to))
            count += 1
        except CannotOpenError:
            closed += 1
    if closed:
        log.error("second_factors_cannot_be_opened", count=closed)
    if count:
        log.info("second_factors_sealed_again", count=count)
    return count
