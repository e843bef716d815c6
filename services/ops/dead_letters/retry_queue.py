"""What waits on the retry ladder, and putting it back early."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor, about, commit_facts
from services.ops.broker.hold import hold, limit_trust, verbatim_copy
from services.ops.broker.publishing import publish
from services.ops.dead_letters.actions import BATCH, Progress
from services.ops.dead_letters.letter import time_of
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology
from shared.bus.contract.delivery import RawDelivery, believed
from shared.bus.contract.events import OpsRetriedNow
from shared.bus.contract.headers import FAILED_AT_HEADER, REASON_HEADER

_SECONDS = {delay.name: delay.seconds for delay in topology.RETRY_DELAYS}


@dataclass(frozen=True, slots=True)
class DelayedMessage:
    """A message on the retry ladder.

    Attributes:
        rung: the delay queue that holds it, such as `retry.30s`.
        queue: the work queue that it returns to.
        message_id: its id.
        type: its type.
        correlation_id: the order or account that it is about.
        attempts: how many times it was tried.
        reason: the reason of its last failure.
        failed_at: the time of its last failure, in ISO 8601.
    """

    rung: str
    queue: str
    message_id: str
    type: str
    correlation_id: str
    attempts: int
    reason: str
    failed_at: str

    @property
    def failed(self) -> datetime | None:
        """The time of its last failure; None if it is unknown, or has no zone."""
        return time_of(self.failed_at)

    @property
    def due(self) -> datetime | None:
        """The time of its next attempt; None if it is unknown."""
        seconds = _SECONDS.get(self.rung)
        if self.failed is None or seconds is None:
            return None
        return self.failed + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Ladder:
    """The messages on the retry ladder.

    Attributes:
        messages: the messages, by delay queue.
        alone: false if another tool or consumer held messages there, which are missing.
        unseen: messages beyond `hold.MOST`, for any work queue.
    """

    messages: Sequence[DelayedMessage]
    alone: bool = True
    unseen: int = 0

    def of(self, queue: str) -> "Ladder":
        """Return the ladder with only the messages that return to one work queue."""
        return Ladder([one for one in self.messages if one.queue == queue], self.alone, self.unseen)


def waiting(connection: Connection) -> Ladder:
    """Return all messages on the ladder, by delay queue."""
    found: list[DelayedMessage] = []
    alone, unseen = True, 0
    for delay in topology.RETRY_DELAYS:
        with hold(connection, delay.name) as held:
            alone &= held.alone
            while messages := held.take(BATCH):
                found += [_delayed(delay.name, message) for message in messages]
            unseen += held.unseen
    return Ladder(found, alone, unseen)


def retry_now(
    connection: Connection,
    engine: Engine,
    queue: topology.Queue,
    actor: Actor,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Return a work queue's messages on the ladder to it now. Their attempts still count.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        engine: the database for the audit facts.
        queue: the work queue.
        actor: the operator.
        progress: called after each batch.

    Raises:
        NotPublishedError: the broker did not take a batch; earlier batches stay done.
        sqlalchemy.exc.DBAPIError: the database is unreachable; earlier batches stay done.
    """
    state = Progress()
    for delay in topology.RETRY_DELAYS:
        with hold(connection, delay.name) as held:
            state.alone &= held.alone
            state.total += held.ready
            while messages := held.take(BATCH):
                due = [m for m in messages if m.delivery_info["routing_key"] == queue.name]
                if due:
                    user = user_of(connection)
                    publish(connection, queue.name, [_copy(message, user) for message in due])
                    fact = OpsRetriedNow(**actor.fields, queue=queue.name, messages=len(due))
                    commit_facts(engine, [about(fact, queue.name)])
                    held.settle(message.delivery_info["delivery_tag"] for message in due)
                state.done += len(due)
                state.passed += len(messages) - len(due)
                progress(state)
    return state


def _copy(message: Any, publisher: str) -> AmqpMessage:
    """Return the message that the broker would return to the work queue itself."""
    queue = str(message.delivery_info["routing_key"])
    incoming = RawDelivery.of(message, believed(queue, publisher))
    return limit_trust(incoming, verbatim_copy(incoming, publisher), queue)


def _delayed(delay_queue: str, message: Any) -> DelayedMessage:
    incoming = RawDelivery.of(message)
    properties, headers = incoming.properties, incoming.headers
    return DelayedMessage(
        rung=delay_queue,
        queue=str(message.delivery_info["routing_key"]),
        message_id=str(properties.get("message_id") or ""),
        type=str(properties.get("type") or ""),
        correlation_id=str(properties.get("correlation_id") or ""),
        attempts=incoming.attempt,
        reason=str(headers.get(REASON_HEADER) or ""),
        failed_at=str(headers.get(FAILED_AT_HEADER) or ""),
    )
