"""Declare the topology on a broker; idempotent."""

from dataclasses import replace
from typing import Any

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from kombu import Connection

from shared.bus.contract import topology
from shared.config.settings import MOST_SHARDS


def declare(connection: Connection, shards: int = 1) -> None:
    """Declare everything on a broker.

    Args:
        connection: open; a separate channel is used.
        shards: the number of queues of `intake`.

    Raises:
        amqp.exceptions.PreconditionFailed: a queue or exchange exists with other arguments. It is
            never deleted here, since it may hold orders.
    """
    with connection.channel() as channel:
        more = (topology.INTAKE_SHARDS,) if shards > 1 else ()
        for exchange in (*topology.EXCHANGES, *more):
            channel.exchange_declare(exchange.name, exchange.kind, durable=True, auto_delete=False)
        for queue in (*topology.shards(shards), *topology.QUEUES):
            if queue.earlier is None:  # one channel for all whose refusal is an error
                declare_queue(channel, queue)
            else:
                declare_or_keep(connection, queue)
        for key in topology.FORMERLY_BOUND:
            channel.queue_unbind(topology.JOURNAL.name, topology.EVENTS, key)


def declare_queue(channel: Any, queue: topology.Queue, *, binds: bool = True) -> None:
    """Declare one queue and its bindings; the exchanges must exist.

    Args:
        channel: an open channel of kombu's.
        queue: one of the topology's.
        binds: whether to declare its bindings too.
    """
    channel.queue_declare(queue.name, durable=True, auto_delete=False, arguments=queue.arguments)
    for binding in queue.bindings if binds else ():
        channel.queue_bind(queue.name, binding.exchange, binding.key)


def declare_or_keep(connection: Connection, queue: topology.Queue, *, binds: bool = True) -> bool:
    """Declare a queue, unless an earlier version has; return whether it is of this version.

    Args:
        connection: open; separate channels are used, since a refusal closes them.
        queue: one of the topology's.
        binds: whether to declare its bindings too.

    Raises:
        amqp.exceptions.PreconditionFailed: it exists with other arguments than these, or its
            `earlier` ones.
    """
    try:
        with connection.channel() as channel:
            declare_queue(channel, queue, binds=binds)
    except PreconditionFailed:
        if queue.earlier is None:
            raise
        with connection.channel() as channel:
            declare_queue(channel, replace(queue, arguments=queue.earlier), binds=binds)
        return False
    return True


def parts(connection: Connection, queue: topology.Queue) -> list[str]:
    """Return the names of the queues that hold a queue's messages: its own and its shards'.

    The broker is asked, shard by shard until one is missing: more may exist than this process is
    configured with, and they are consumed until they are empty.

    Args:
        connection: an open kombu connection.
        queue: one of the topology's.
    """
    names = [queue.name]
    if queue.name == topology.ORDERS_INTAKE.name:
        for shard in topology.shards(MOST_SHARDS):
            try:
                with connection.channel() as channel:
                    channel.queue_declare(shard.name, passive=True)
            except (NotFound, AccessRefused):
                break  # refused: the rights were made by a version without shards
            names.append(shard.name)
    return names


def retire(connection: Connection, shards: int) -> list[str]:
    """Unbind the shards beyond a number, and return their names.

    Messages in them are consumed as before. A publisher that still publishes to them gets a return,
    and publishes to the first queue instead.

    Args:
        connection: open, of a user that may unbind.
        shards: the number of queues of `intake`.
    """
    names = parts(connection, topology.ORDERS_INTAKE)[shards:]
    with connection.channel() as channel:
        for name in names:
            channel.queue_unbind(name, topology.INTAKE_SHARDS.name, name)
    return names


def has_shards(connection: Connection) -> bool:
    """Whether the exchange for shards exists."""
    exchange = topology.INTAKE_SHARDS
    try:
        with connection.channel() as channel:
            channel.exchange_declare(exchange.name, exchange.kind, passive=True)
    except (NotFound, AccessRefused):
        return False
    return True


def ensure(connection: Connection, own: topology.Queue | None = None, shards: int = 1) -> None:
    """Declare everything unless that was done before.

    A consumer declares its own queue only: since RabbitMQ 4.2.6 and 4.3.0 a passive declare needs a
    right on the queue, and in these two versions the right to declare it.

    Args:
        connection: open.
        own: the queue of a consumer. Without one, the journal is declared passively to see whether
            the topology exists; a user that may not do that could not declare either.
        shards: the number of queues of `intake`, used if nothing is declared yet.

    Raises:
        amqp.exceptions.AccessRefused: nothing is declared, and this user may not: the deployment
            lacks its step `python -m shared.bus.declare`.
    """
    try:
        with connection.channel() as channel:
            if own is not None:
                declare_queue(channel, own)
            else:
                # Declared last, so it exists only if all else does.
                channel.queue_declare(topology.JOURNAL.name, passive=True)
    except NotFound:
        declare(connection, shards)
    except AccessRefused:
        if own is not None:
            raise
