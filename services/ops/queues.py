"""The queues as the broker sees them, by passive declarations: no plugin is needed."""

from dataclasses import asdict, dataclass
from typing import Any

from amqp.exceptions import AMQPError, NotFound
from kombu import Connection

from shared.bus import topology


class BrokerAwayError(Exception):
    """The broker cannot be reached."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue.

    Attributes:
        name: its name.
        ready: messages waiting.
        consumers: how many consume it; None for a rung of the retry ladder, which nobody does.
        dead: messages in its dead queue; None where it has none.
    """

    name: str
    ready: int
    consumers: int | None
    dead: int | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read(amqp_url: str) -> list[QueueState]:
    """The work queues with their dead ones, then the retry ladder.

    Raises:
        BrokerAwayError: see there.
    """
    try:
        with Connection(amqp_url, connect_timeout=5) as connection:
            connection.connect()
            states = []
            for queue in topology.WORK_QUEUES:
                ready, consumers = _look(connection, queue.name)
                dead, _ = _look(connection, queue.dead)
                states.append(QueueState(queue.name, ready, consumers, dead))
            for rung in topology.RETRY_LADDER:
                ready, _ = _look(connection, rung.name)
                states.append(QueueState(rung.name, ready, None, None))
            return states
    except (OSError, AMQPError) as error:
        raise BrokerAwayError(str(error) or type(error).__name__) from None


def _look(connection: Connection, name: str) -> tuple[int, int]:
    # A channel each: a queue that is not there closes it.
    channel = connection.channel()
    try:
        found = channel.queue_declare(name, passive=True)
    except NotFound:
        return 0, 0
    channel.close()
    return found.message_count, found.consumer_count
