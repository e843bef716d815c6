"""Every queue's depth and consumers, over plain AMQP: no management plugin is needed."""

from dataclasses import dataclass

from amqp.exceptions import NotFound
from kombu import Connection

from shared.bus import topology


@dataclass(frozen=True, slots=True)
class Depth:
    """One queue, as the broker sees it now.

    Attributes:
        name: the queue.
        messages: how many wait; None when there is no such queue. Those that a consumer has in
            hand are not counted.
        consumers: how many consume it.
        dead: for a work queue, how many messages have died in it.
    """

    name: str
    messages: int | None
    consumers: int | None
    dead: int | None = None


def depths(connection: Connection) -> list[Depth]:
    """Every queue of the topology.

    Args:
        connection: an open kombu connection.
    """
    counts = {queue.name: _count(connection, queue.name) for queue in topology.QUEUES}
    dead = {queue.name: counts[queue.dead][0] for queue in topology.WORK_QUEUES}
    return [
        Depth(name, messages, consumers, dead.get(name))
        for name, (messages, consumers) in counts.items()
    ]


def _count(connection: Connection, queue: str) -> tuple[int | None, int | None]:
    # A queue that is not there closes the channel, so each gets its own.
    with connection.channel() as channel:
        try:
            declared = channel.queue_declare(queue, passive=True)
        except NotFound:
            return None, None
        return declared.message_count, declared.consumer_count
