"""The end of dead letters that nobody dealt with: discarded, and the audit log is told of each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor
from services.ops.broker.connection import open_connection
from services.ops.dead_letters import actions, search
from services.ops.dead_letters.letter import Criteria
from shared.bus.contract import topology
from shared.config.settings import Settings
from shared.db.session import engine
from shared.periodic import keep_running
from shared.telemetry import metrics

PLACE = "dead_letters"
SECONDS = 3600.0
NOBODY = Actor("retention", "services.ops")

log = structlog.get_logger()


def over(
    connection: Connection, queue: topology.Queue, days: int, as_of: datetime
) -> tuple[int, bool]:
    """How many letters of a queue are older than they may be; those without a time are not.

    With it goes whether all could be looked at: there may be more otherwise.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        days: for how long letters are kept; 0 is for ever.
        as_of: the time by both clocks.
    """
    if not days:
        return 0, True
    found = search.summarise(connection, queue, replace(_old(days), as_of=as_of))
    return sum(group.count for group in found.groups), found.alone and not found.unseen


def discard(connection: Connection, books: Engine, days: int) -> int:
    """Discard what is over in all dead queues; returns how many.

    Args:
        connection: an open kombu connection.
        books: where the audit facts go.
        days: for how long letters are kept; 0 is for ever.

    Raises:
        Exception: of kombu or py-amqp, or since the database is away; what could be done is.
    """
    done = 0
    failures: list[Exception] = []
    why = f"older than {days} days (RETENTION_DEAD_LETTERS_DAYS)"
    for queue in topology.WORK_QUEUES if days else ():
        try:
            if search.browse(connection, queue, _old(days), limit=1).letters:
                done += actions.discard(connection, books, queue, _old(days), NOBODY, why).done
        except Exception as error:  # noqa: BLE001 - one that cannot be read keeps no other's letters
            log.warning("dead_letters_kept", queue=queue.dead, error=f"{error}"[:300])
            failures.append(error)
    if failures:
        raise failures[0]
    return done


def oldest(connection: Connection) -> datetime | None:
    """When the first letter died of those that are in the dead queues; None when there is none."""
    groups = [
        group.oldest
        for queue in topology.WORK_QUEUES
        for group in search.summarise(connection, queue).groups
    ]
    return min((at for at in groups if at is not None), default=None)


async def keep_ending(config: Settings) -> None:
    """Discard what is over, each hour, until cancelled.

    Args:
        config: of the broker, and `retention_dead_letters_days`.
    """
    await keep_running(f"retention {PLACE}", SECONDS, partial(_once, config))


def _once(config: Settings) -> None:
    with open_connection(config.amqp_url) as connection:
        done = discard(connection, engine(), config.retention_dead_letters_days)
        metrics.kept(PLACE, done, oldest(connection))
        if done:
            log.info("dead_letters_over", discarded=done, at=datetime.now(UTC).isoformat())


def _old(days: int) -> Criteria:
    return Criteria(older_than=timedelta(days=days))
