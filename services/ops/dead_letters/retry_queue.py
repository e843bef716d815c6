"""What waits on the retry ladder for a queue, and putting it back ahead of its time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from amqp import Message as AmqpMessage
from kombu import Connection
from sqlalchemy import Engine

from services.ops.audit.actions import Actor, about, tell
from services.ops.broker.hold import as_it_is, hold
from services.ops.broker.publishing import publish
from services.ops.dead_letters.actions import BATCH, Progress
from shared.bus.broker.kombu_connection import user_of
from shared.bus.contract import topology
from shared.bus.contract.delivery import Incoming, believed
from shared.bus.contract.events import OpsRetriedNow
from shared.bus.contract.headers import FAILED_AT_HEADER, REASON_HEADER

_SECONDS = {rung.name: rung.seconds for rung in topology.RETRY_LADDER}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message on the retry ladder.

    Attributes:
        rung: the queue that it waits in, such as `retry.30s`.
        queue: where it goes back to.
        message_id: its id.
        type: its type.
        correlation_id: the order or account that its story is about.
        attempts: how many times it was tried.
        reason: why it failed last.
        failed_at: when that was, in ISO 8601.
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
        """When it failed last; None where that is not known, or without its zone."""
        try:
            at = datetime.fromisoformat(self.failed_at)
        except ValueError:
            return None
        return None if at.tzinfo is None else at

    @property
    def due(self) -> datetime | None:
        """When it goes back to be tried again; None where that is not known."""
        seconds = _SECONDS.get(self.rung)
        if self.failed is None or seconds is None:
            return None
        return self.failed + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Ladder:
    """What is on the ladder.

    Attributes:
        messages: by rung.
        alone: false when somebody else was at work there: what they had in hand is missing.
        unseen: how many lie behind what can be looked through, for whichever queue.
    """

    messages: Sequence[Waiting]
    alone: bool = True
    unseen: int = 0

    def of(self, queue: str) -> "Ladder":
        """What goes back to one queue."""
        return Ladder([one for one in self.messages if one.queue == queue], self.alone, self.unseen)


def waiting(connection: Connection) -> Ladder:
    """Everything on the ladder, by rung."""
    found: list[Waiting] = []
    alone, unseen = True, 0
    for rung in topology.RETRY_LADDER:
        with hold(connection, rung.name) as held:
            alone &= held.alone
            while messages := held.take(BATCH):
                found += [_waiting(rung.name, message) for message in messages]
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
    """Put back at once what waits on the ladder for a work queue. Its attempts still count.

    Args:
        connection: an open kombu connection, which may publish to the default exchange.
        engine: where the audit facts go.
        queue: the work queue.
        actor: who wants it.
        progress: called after each batch.

    Raises:
        NotPublishedError: the broker did not take a batch; what was done before stays done.
        sqlalchemy.exc.DBAPIError: the database is away; the same.
    """
    state = Progress()
    for rung in topology.RETRY_LADDER:
        with hold(connection, rung.name) as held:
            state.alone &= held.alone
            state.total += held.ready
            while messages := held.take(BATCH):
                meant = [m for m in messages if m.delivery_info["routing_key"] == queue.name]
                if meant:
                    user = user_of(connection)
                    publish(connection, queue.name, [_as_it_is(message, user) for message in meant])
                    fact = OpsRetriedNow(**actor.fields, queue=queue.name, messages=len(meant))
                    tell(engine, [about(fact, queue.name)])
                    held.settle(message.delivery_info["delivery_tag"] for message in meant)
                state.done += len(meant)
                state.passed += len(messages) - len(meant)
                progress(state)
    return state


def _as_it_is(message: Any, publisher: str) -> AmqpMessage:
    """What the broker would put back itself."""
    queue = str(message.delivery_info["routing_key"])
    return as_it_is(Incoming.of(message, believed(queue, publisher)), publisher)


def _waiting(rung: str, message: Any) -> Waiting:
    properties = message.properties
    headers = properties.get("application_headers") or {}
    attempts = headers.get("x-attempt", 0)
    return Waiting(
        rung=rung,
        queue=str(message.delivery_info["routing_key"]),
        message_id=str(properties.get("message_id") or ""),
        type=str(properties.get("type") or ""),
        correlation_id=str(properties.get("correlation_id") or ""),
        attempts=attempts if isinstance(attempts, int) else 0,
        reason=str(headers.get(REASON_HEADER) or ""),
        failed_at=str(headers.get(FAILED_AT_HEADER) or ""),
    )
