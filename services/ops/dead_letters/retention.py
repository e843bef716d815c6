"""Discards dead letters beyond their retention period, each with an audit fact."""

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
ACTOR = Actor("retention", "services.ops")

log = structlog.get_logger()


def over(
    connection: Connection, queue: topology.Queue, days: int, as_of: datetime
) -> tuple[int, bool]:
    """Count the letters of a queue beyond their retention period; those without a time never are.

    Args:
        connection: an open kombu connection.
        queue: the work queue.
        days: the retention period; 0 keeps letters indefinitely.
        as_of: the earlier time of the database's and this host's clock.

    Returns:
        The number, and whether it is complete: all letters could be read.
    """
    if not days:
        return 0, True
    found = search.summarise(connection, queue, replace(_old(days), as_of=as_of))
    return sum(group.count for group in found.groups), found.alone and not found.unseen


def discard(connection: Connection, books: Engine, days: int) -> int:
    """Discard the letters beyond their retention period in all dead queues.

    Args:
        connection: an open kombu connection.
        books: the database for the audit facts.
        days: the retention period; 0 keeps letters indefinitely.

    Returns:
        How many were discarded.

    Raises:
        Exception: the first error of kombu, py-amqp or the database, after all queues were tried.
    """
    done = 0
    failures: list[Exception] = []
    why = f"older than {days} days (RETENTION_DEAD_LETTERS_DAYS)"
    for queue in topology.WORK_QUEUES if days else ():
        try:
            if search.browse(connection, queue, _old(days), limit=1).letters:
                done += actions.discard(connection, books, queue, _old(days), ACTOR, why).done
        except Exception as error:  # noqa: BLE001 - the other queues do not depend on this one
            log.warning("dead_letters_kept", queue=queue.dead, error=f"{error}"[:300])
            failures.append(error)
    if failures:
        raise failures[0]
    return done


def oldest(connection: Connection) -> datetime | None:
    """Return the earliest death among the letters of all dead queues; None if there are none."""
    groups = [
        group.oldest
        for queue in topology.WORK_QUEUES
        for group in search.summarise(connection, queue).groups
    ]
    return min((at for at in groups if at is not None), default=None)


async def run_retention(config: Settings) -> None:
    """Discard expired dead letters each hour, until cancelled.

    Args:
        config: provides the broker's address and `retention_dead_letters_days`.
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
