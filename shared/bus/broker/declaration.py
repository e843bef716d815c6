"""Declaring the topology on a broker; doing it again changes nothing."""

from typing import Any

from amqp.exceptions import AccessRefused, NotFound
from kombu import Connection

from shared.bus.contract import topology


def declare(connection: Connection) -> None:
    """Declare everything on a broker.

    Args:
        connection: an open kombu connection; a channel of its own is opened and closed.

    Raises:
        amqp.exceptions.PreconditionFailed: something stands there with other arguments. It is
            never deleted or changed here: what it holds may be somebody's orders.
    """
    with connection.channel() as channel:
        for exchange in topology.EXCHANGES:
            channel.exchange_declare(exchange.name, exchange.kind, durable=True, auto_delete=False)
        for queue in topology.QUEUES:
            declare_queue(channel, queue)
        for key in topology.FORMERLY_BOUND:
            channel.queue_unbind(topology.JOURNAL.name, topology.EVENTS, key)


def declare_queue(channel: Any, queue: topology.Queue) -> None:
    """Declare one queue and its bindings; its exchanges must be there.

    Args:
        channel: an open channel of kombu's.
        queue: one of the topology's.
    """
    channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=queue.arguments)
    for binding in queue.bindings:
        channel.queue_bind(queue.name, binding.exchange, binding.key)


def ensure(connection: Connection, own: topology.Queue | None = None) -> None:
    """Declare everything unless that was done before.

    A consumer touches its own queue alone: since RabbitMQ 4.2.6 and 4.3.0 even a look (a passive
    declare) needs a right on the thing, and in just these two it needs the right to declare it.

    Args:
        connection: an open kombu connection.
        own: the queue of a consumer, who keeps it declared, with its bindings. Without one the
            journal is looked at; who may not look could not declare either, and goes on.

    Raises:
        amqp.exceptions.AccessRefused: nothing is declared, and this user may not: the deployment
            lacks its step `python -m shared.bus.declare`.
    """
    try:
        with connection.channel() as channel:
            if own is not None:
                declare_queue(channel, own)
            else:
                # Declared last, so that all the rest is there when it is.
                channel.queue_declare(topology.JOURNAL.name, passive=True)
    except NotFound:
        declare(connection)
    except AccessRefused:
        if own is not None:
            raise
